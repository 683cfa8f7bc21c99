// SGLang, as its model loader reads ModelOpt's configs (srt/configs/model_config.py,
// srt/layers/quantization/modelopt_quant.py) and fine-grained FP8 (fp8.py).
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "engine/engine.h"

namespace quantport {
namespace {

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// The longest renaming of each kind that fits, once.
std::string Rename(const NameMapper& mapper, std::string name) {
  const auto longest = [](const NameMapper::Pairs& pairs, const auto& fits) {
    const std::pair<std::string, std::string>* found = nullptr;
    for (const auto& pair : pairs) {
      if (fits(pair.first) && (found == nullptr || pair.first.size() > found->first.size())) found = &pair;
    }
    return found;
  };
  if (const auto* pair = longest(mapper.substr, [&](const std::string& from) { return Contains(name, from); }))
    name = ReplaceFirst(name, pair->first, pair->second);
  if (const auto* pair = longest(mapper.prefix, [&](const std::string& from) { return name.starts_with(from); }))
    name = pair->second + name.substr(pair->first.size());
  if (const auto* pair = longest(mapper.suffix, [&](const std::string& from) { return name.ends_with(from); }))
    name = name.substr(0, name.size() - pair->first.size()) + pair->second;
  return name;
}

void ReadModelOpt(const Json& quantization, const ArchitectureFacts& architecture, EngineQuantization* read) {
  const bool flat = quantization.contains("quant_algo");
  const auto nested = quantization.find("quantization");
  const Json& own = flat || nested == quantization.end() ? quantization : *nested;
  read->algorithm = TextOf(own, "quant_algo");  // by its case as well
  read->mixed = read->algorithm == "MIXED_PRECISION";
  read->group_size = NumberOf(own, "group_size");
  const auto groups = own.find("config_groups");
  if (read->group_size == 0 && groups != own.end() && groups->is_object() && !groups->empty() &&
      groups->begin()->is_object()) {
    const Json& weights = groups->begin()->value("weights", Json());
    if (weights.is_object()) read->group_size = NumberOf(weights, "group_size");
  }
  if (read->group_size == 0 && Contains(read->algorithm, "NVFP4")) read->group_size = 16;
  for (const std::string& entry : TextsOf(own, flat ? "ignore" : "exclude_modules")) {
    std::string renamed = Rename(architecture.mapper, entry);
    constexpr std::string_view kText = "language_model.";
    if (architecture.has_mapper && renamed.starts_with(kText)) read->excludes.push_back(renamed.substr(kText.size()));
    read->excludes.push_back(std::move(renamed));
  }
  const auto layers = own.find("quantized_layers");
  if (read->mixed && layers != own.end() && layers->is_object()) {
    bool fp4 = false;
    for (const auto& [module, scheme] : layers->items()) {
      if (!scheme.is_object()) continue;
      const std::string algorithm = UpperCase(TextOf(scheme, "quant_algo"));
      fp4 = fp4 || algorithm == "NVFP4" || algorithm == "W4A16_NVFP4";
      read->layers[Rename(architecture.mapper, module)] = algorithm;
    }
    // Without a layer in NVFP4 it takes the checkpoint for one of W4AFP8, another quantizer's.
    if (!fp4) read->algorithm = "MIXED_PRECISION without NVFP4";
    if (read->group_size == 0) read->group_size = 16;
  }
}

// Entries of fine-grained FP8 hold with and without "model." in front.
void ReadFp8(const Json& quantization, const ArchitectureFacts& architecture, EngineQuantization* read) {
  std::vector<std::string> entries = TextsOf(quantization, "ignored_layers");
  if (entries.empty()) entries = TextsOf(quantization, "modules_to_not_convert");
  for (const std::string& entry : entries) {
    const std::string base = entry.starts_with("model.") ? entry.substr(6) : entry;
    read->excludes.push_back(Rename(architecture.mapper, base));
    read->excludes.push_back(Rename(architecture.mapper, "model." + base));
  }
}

EngineQuantization Read(const QuantizationConfigs& configs, const ArchitectureFacts& architecture,
                        std::vector<EngineFinding>*) {
  EngineQuantization read;
  const Json* quantization = FindQuantization(configs.config);
  read.file = "config.json";
  if (quantization == nullptr && configs.quant_config.is_object()) {
    quantization = &configs.quant_config;
    read.file = "hf_quant_config.json";
  }
  if (quantization == nullptr) return read;
  const std::string method = TextOf(*quantization, "quant_method");
  if (method == "fp8" && quantization->contains("weight_block_size")) {
    read.algorithm = "fp8-tiles";
    ReadFp8(*quantization, architecture, &read);
  } else if (method == "mxfp8") {
    read.algorithm = "MXFP8";
    ReadFp8(*quantization, architecture, &read);
  } else if (method.empty() || method == "modelopt") {
    ReadModelOpt(*quantization, architecture, &read);
  } else {
    read.known = false;
  }
  return read;
}

// An entry as whole segments somewhere in the path.
bool InPath(const std::string& entry, const std::string& module) {
  return Contains("." + module + ".", "." + entry + ".");
}

PartsNamed Skipped(const std::vector<std::string>& entries, const ArchitectureFacts& architecture,
                   const std::string& prefix) {
  static const std::map<std::string, std::vector<std::string>> kUsual = {{"qkv_proj", {"q_proj", "k_proj", "v_proj"}},
                                                                         {"gate_up_proj", {"gate_proj", "up_proj"}}};
  const std::string last = LastSegment(prefix);
  const auto own = architecture.packed.find(last);
  const auto usual = kUsual.find(last);
  if (own != architecture.packed.end()) return PartsExcluded(prefix, own->second, entries, InPath);
  if (usual != kUsual.end()) return PartsExcluded(prefix, usual->second, entries, InPath);
  const bool named = std::any_of(entries.begin(), entries.end(), [&](const auto& e) { return InPath(e, prefix); });
  const bool part = Contains(prefix, "experts") && std::any_of(entries.begin(), entries.end(), [&](const auto& e) {
                      return Contains(e, "experts") && Contains(e, prefix);
                    });
  return {named || part, {}};
}

// A glob over the whole path or any one segment of it; only * is special, and a dot is one.
bool MatchesGlob(const std::string& entry, const std::string& prefix) {
  const std::string pattern = ReplaceAll(ReplaceAll(entry, "[", "[[]"), "?", "[?]");
  if (GlobMatch(pattern, prefix)) return true;
  for (const std::string_view segment : SplitDots(prefix)) {
    if (GlobMatch(pattern, segment)) return true;
  }
  return false;
}

bool ExcludedByGlob(const std::vector<std::string>& entries, const std::string& prefix) {
  constexpr std::string_view kText = "language_model.";
  for (const std::string& entry : entries) {
    if (MatchesGlob(entry, prefix)) return true;
    if (prefix.starts_with(kText) && MatchesGlob(entry, prefix.substr(kText.size()))) return true;
    const std::string tail = LastSegment(entry);
    for (const std::string_view part : {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"}) {
      if (tail == part && Contains(LastSegment(prefix), part)) return true;
    }
  }
  return false;
}

std::vector<std::string> Candidates(const std::string& prefix) {
  std::vector<std::string> candidates = {prefix};
  constexpr std::string_view kHub = "language_model.model.", kMemory = "model.language_model.", kModel = "model.";
  if (prefix.ends_with(".lm_head")) candidates.push_back("lm_head");
  if (prefix.starts_with(kHub)) {
    candidates.push_back(std::string(kMemory) + prefix.substr(kHub.size()));
  } else if (prefix.starts_with(kMemory)) {
    candidates.push_back(std::string(kHub) + prefix.substr(kMemory.size()));
    candidates.push_back(std::string(kModel) + prefix.substr(kMemory.size()));
  } else if (prefix.starts_with(kModel)) {
    candidates.push_back(std::string(kMemory) + prefix.substr(kModel.size()));
  }
  return candidates;
}

LayerDecision Decide(const EngineQuantization& quantization, const ArchitectureFacts& architecture, LayerKind kind,
                     const std::string& prefix) {
  const bool modelopt = quantization.algorithm != "fp8-tiles" && quantization.algorithm != "MXFP8";
  if (!modelopt && LastSegment(prefix) == "lm_head") return {};  // fine-grained FP8 has no method for heads
  if (kind == LayerKind::kLinear || !modelopt) {
    const PartsNamed skipped = Skipped(quantization.excludes, architecture, prefix);
    if (!skipped.fault.empty()) return {{}, skipped.fault};
    if (skipped.all) return {};
  }
  if (modelopt && ExcludedByGlob(quantization.excludes, prefix)) return {};
  if (quantization.mixed) return ListedAlgorithm(quantization.layers, architecture, prefix, Candidates(prefix));
  return {quantization.algorithm, {}};
}

}  // namespace

const Engine kSglang = {"sglang", "SGLang", Read, Decide, false};

}  // namespace quantport
