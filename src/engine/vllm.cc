// vLLM, as its model loader reads ModelOpt's configs (model_executor/layers/quantization/modelopt.py) and fine-grained
// FP8 (fp8.py).
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "engine/engine.h"

namespace quantport {
namespace {

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

std::string Rename(const NameMapper& mapper, std::string name) {
  for (const auto& [from, to] : mapper.substr) name = ReplaceFirst(name, from, to);
  for (const auto& [from, to] : mapper.prefix) {
    if (name.starts_with(from)) name = to + name.substr(from.size());
  }
  for (const auto& [from, to] : mapper.suffix) {
    if (name.ends_with(from)) name = name.substr(0, name.size() - from.size()) + to;
  }
  return name;
}

// "module*" stands for the module and what is below it. A class without a mapper is not asked, and has it as a glob.
std::vector<std::string> RenamedEntries(const ArchitectureFacts& architecture,
                                        const std::vector<std::string>& entries) {
  if (!architecture.has_mapper) return entries;
  std::vector<std::string> renamed;
  for (const std::string& entry : entries) {
    if (entry.size() >= 2 && entry.back() == '*' && entry[entry.size() - 2] != '.') {
      const std::string module = entry.substr(0, entry.size() - 1);
      renamed.push_back(Rename(architecture.mapper, module));
      renamed.push_back(Rename(architecture.mapper, module + ".*"));
    } else {
      renamed.push_back(Rename(architecture.mapper, entry));
    }
  }
  return renamed;
}

// Activations of no group are quantized, so that NVFP4 is taken for W4A16_NVFP4.
bool WeightsOnly(const Json& quantization) {
  const auto groups = quantization.find("config_groups");
  if (groups == quantization.end() || !groups->is_object() || groups->empty()) return false;
  return std::all_of(groups->begin(), groups->end(), [](const Json& group) {
    return group.is_object() && group.value("input_activations", Json()).is_null();
  });
}

void ReadModelOpt(const Json& quantization, const ArchitectureFacts& architecture, EngineQuantization* read) {
  const bool nested = quantization.contains("quantization");
  const Json& own = nested ? quantization["quantization"] : quantization;
  read->algorithm = UpperCase(TextOf(own, "quant_algo"));
  read->group_size = NumberOf(own, "group_size");
  read->excludes = RenamedEntries(architecture, TextsOf(own, nested ? "exclude_modules" : "ignore"));
  read->mixed = read->algorithm == "MIXED_PRECISION";
  if (read->algorithm == "NVFP4" && WeightsOnly(quantization)) read->algorithm = "W4A16_NVFP4";
  const auto layers = own.find("quantized_layers");
  if (read->mixed && layers != own.end() && layers->is_object()) {
    for (const auto& [module, scheme] : layers->items()) {
      if (!scheme.is_object()) continue;
      const std::string algorithm = UpperCase(TextOf(scheme, "quant_algo"));
      read->layers[architecture.has_mapper ? Rename(architecture.mapper, module) : module] = algorithm;
      if (read->group_size == 0 && Contains(algorithm, "NVFP4")) read->group_size = NumberOf(scheme, "group_size");
    }
  }
  if (read->group_size == 0) read->group_size = 16;
}

EngineQuantization Read(const QuantizationConfigs& configs, const ArchitectureFacts& architecture,
                        std::vector<EngineFinding>* findings) {
  EngineQuantization read;
  const Json* quantization = FindQuantization(configs.config);
  read.file = "config.json";
  if (quantization == nullptr && configs.quant_config.is_object()) {
    quantization = &configs.quant_config;
    read.file = "hf_quant_config.json";
    const auto own = quantization->find("quantization");
    if (own != quantization->end() && Contains(UpperCase(TextOf(*own, "quant_algo")), "NVFP4")) {
      for (const char* key : {"group_size", "kv_cache_quant_algo", "exclude_modules"}) {
        if (own->contains(key)) continue;
        findings->push_back({"config-keys", true, read.file, key,
                             fmt::format("vLLM wants \"{}\" in an NVFP4 checkpoint's hf_quant_config.json", key),
                             "add it, or write the quantization into config.json as well"});
      }
    }
  }
  if (quantization == nullptr) return read;
  const std::string method = TextOf(*quantization, "quant_method");
  if (method == "fp8" && quantization->contains("weight_block_size")) {
    read.algorithm = "fp8-tiles";
    std::vector<std::string> entries = TextsOf(*quantization, "ignored_layers");
    if (entries.empty()) entries = TextsOf(*quantization, "modules_to_not_convert");
    for (std::string& entry : entries)
      read.excludes.push_back(architecture.has_mapper ? Rename(architecture.mapper, std::move(entry)) : entry);
  } else if (UpperCase(method).starts_with("MODELOPT") || quantization == &configs.quant_config) {
    ReadModelOpt(*quantization, architecture, &read);
  } else {
    read.known = false;
  }
  return read;
}

bool SameName(const std::string& entry, const std::string& part) { return entry == part; }

// is_layer_skipped, which knows the parts of fused layers by their whole names.
PartsNamed Skipped(const std::vector<std::string>& entries, const ArchitectureFacts& architecture,
                   const std::string& prefix) {
  const bool exact = std::find(entries.begin(), entries.end(), prefix) != entries.end();
  const auto packed = architecture.packed.find(LastSegment(prefix));
  if (packed != architecture.packed.end())
    return exact ? PartsNamed{true, {}} : PartsExcluded(prefix, packed->second, entries, SameName);
  if (Contains(prefix, "experts")) {
    return {std::any_of(entries.begin(), entries.end(),
                        [&](const std::string& e) { return Contains(e, "experts") && Contains(e, prefix); }),
            {}};
  }
  return {exact, {}};
}

PartsNamed Excluded(const EngineQuantization& quantization, const ArchitectureFacts& architecture,
                    const std::string& prefix) {
  if (quantization.excludes.empty()) return {};
  const PartsNamed skipped = Skipped(quantization.excludes, architecture, prefix);
  if (skipped.all || !skipped.fault.empty() || quantization.algorithm == "fp8-tiles") return skipped;
  constexpr std::string_view kText = "language_model.";
  for (const std::string& entry : quantization.excludes) {
    if (entry != prefix &&
        (Contains(prefix, entry) ||
         (prefix.starts_with(kText) && Contains(std::string_view(prefix).substr(kText.size()), entry))))
      return {true, {}};
    if (GlobMatch(entry, prefix)) return {true, {}};
  }
  return {};
}

std::vector<std::string> Candidates(const std::string& prefix) {
  std::vector<std::string> candidates = {prefix};
  constexpr std::string_view kHub = "language_model.model.", kMemory = "model.language_model.";
  if (prefix.ends_with(".lm_head")) candidates.push_back("lm_head");
  if (prefix.starts_with(kHub)) candidates.push_back(std::string(kMemory) + prefix.substr(kHub.size()));
  if (prefix.starts_with(kMemory)) candidates.push_back(std::string(kHub) + prefix.substr(kMemory.size()));
  return candidates;
}

LayerDecision Listed(const EngineQuantization& quantization, const ArchitectureFacts& architecture,
                     const std::string& prefix) {
  LayerDecision found = ListedAlgorithm(quantization.layers, architecture, prefix, Candidates(prefix));
  if (!found.algorithm.empty() || !found.fault.empty()) return found;
  // Entries for parts of experts stand beside the container's name, and those of fused projections beside theirs.
  if (prefix.ends_with(".experts")) {
    const std::string parent = prefix.substr(0, prefix.size() - std::string_view("experts").size());
    const auto it = quantization.layers.lower_bound(parent);
    if (it != quantization.layers.end() && it->first.starts_with(parent)) return {it->second, {}};
  }
  static const std::map<std::string, std::vector<std::string>> kProjections = {
      {"qkv_proj", {"q_proj", "k_proj", "v_proj"}}, {"gate_up_proj", {"gate_proj", "up_proj"}}};
  ArchitectureFacts usual;
  usual.packed = kProjections;
  return ListedAlgorithm(quantization.layers, usual, prefix, Candidates(prefix));
}

LayerDecision Decide(const EngineQuantization& quantization, const ArchitectureFacts& architecture, LayerKind,
                     const std::string& prefix) {
  // Fine-grained FP8 has no method for heads.
  if (quantization.algorithm == "fp8-tiles" && LastSegment(prefix) == "lm_head") return {};
  const PartsNamed excluded = Excluded(quantization, architecture, prefix);
  if (!excluded.fault.empty()) return {{}, excluded.fault};
  if (excluded.all) return {};
  if (quantization.mixed) return Listed(quantization, architecture, prefix);
  if (quantization.algorithm != "fp8-tiles") {
    for (const std::string_view tower : {"vision_tower", "vision_model", "vit_large_projector"}) {
      if (Contains(prefix, tower)) return {};
    }
  }
  return {quantization.algorithm, {}};
}

}  // namespace

const Engine kVllm = {"vllm", "vLLM", Read, Decide, true};

}  // namespace quantport
