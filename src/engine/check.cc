#include "engine/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/checked.h"
#include "base/text.h"
#include "engine/stored_layers.h"

namespace quantport {
namespace {

// Keeps one finding for each check and reason, and counts the others.
class Findings {
 public:
  void Add(EngineFinding finding) {
    const std::string key = finding.check + "\n" + finding.reason;
    const auto [it, added] = places_.emplace(key, found_.size());
    if (added) {
      found_.push_back(std::move(finding));
      others_.push_back(0);
    } else {
      ++others_[it->second];
    }
  }

  std::vector<EngineFinding> Take() {
    for (size_t i = 0; i < found_.size(); ++i) {
      if (others_[i] > 0) found_[i].subject += fmt::format(" and {} others", others_[i]);
    }
    return std::move(found_);
  }

 private:
  std::vector<EngineFinding> found_;
  std::vector<size_t> others_;
  std::map<std::string, size_t> places_;
};

bool IsPlainFloat(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF32; }

std::string ShapeText(const std::vector<uint64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// ---- the checks --------------------------------------------------------------------------------------------------

class Checks {
 public:
  Checks(const Engine& engine, const EngineFacts& facts, const EngineInput& input)
      : engine_(engine), facts_(facts), input_(input) {}

  std::vector<EngineFinding> Run() {
    static const ArchitectureFacts kUnknown;
    const ArchitectureFacts* known = FindArchitecture();
    const ArchitectureFacts& architecture = known == nullptr ? kUnknown : *known;
    if (!architecture.refused.empty()) return findings_.Take();
    CheckConfigsAgree();
    std::vector<EngineFinding> read_findings;
    quantization_ = engine_.read(input_.configs, architecture, &read_findings);
    for (EngineFinding& finding : read_findings) findings_.Add(std::move(finding));
    if (!quantization_.known) {
      Unchecked(
          "quant-method", quantization_.file, "",
          fmt::format("how {} reads this producer's config is not known here, so only its names are checked", Title()),
          "");
    }
    if (!CheckAlgorithm() || known == nullptr) return findings_.Take();
    StoredLayers stored = SortTensors(*input_.table, architecture);
    CheckLeftOver(stored, architecture);
    CheckExpertNumbers(stored);
    CheckLayerNumbers(stored);
    for (const StoredLayer& layer : stored.layers) CheckLayer(layer, architecture);
    CheckCacheScales(stored, architecture);
    return findings_.Take();
  }

 private:
  std::string Title() const { return fmt::format("{} {}", engine_.title, facts_.version); }

  void Problem(std::string check, std::string file, std::string subject, std::string reason, std::string remedy) {
    findings_.Add({std::move(check), true, std::move(file), std::move(subject), std::move(reason), std::move(remedy)});
  }
  void Note(std::string check, std::string file, std::string subject, std::string reason, std::string remedy) {
    findings_.Add({std::move(check), false, std::move(file), std::move(subject), std::move(reason), std::move(remedy)});
  }

  void Unchecked(std::string check, std::string file, std::string subject, std::string reason, std::string remedy) {
    findings_.Add(
        {std::move(check), false, std::move(file), std::move(subject), std::move(reason), std::move(remedy), true});
  }

  const ArchitectureFacts* FindArchitecture() {
    const Json& config = input_.configs.config;
    const std::vector<std::string> names =
        config.is_object() ? TextsOf(config, "architectures") : std::vector<std::string>();
    for (const std::string& name : names) {
      const auto it = facts_.architectures.find(name);
      if (it == facts_.architectures.end()) continue;
      if (!it->second.refused.empty()) {
        Problem("architecture", "config.json", name,
                fmt::format("{} does not load it: {}", Title(), it->second.refused), "serve it with another engine");
      }
      return &it->second;
    }
    Unchecked("architecture", "config.json", fmt::format("{}", fmt::join(names, ", ")),
              fmt::format("there are no facts about this architecture in {}, so only the configs are checked", Title()),
              "give them with --engine-file");
    return nullptr;
  }

  void CheckConfigsAgree() {
    const Json* config = FindQuantization(input_.configs.config);
    const Json& other = input_.configs.quant_config;
    if (config == nullptr || !other.is_object() || !other.contains("quantization")) return;
    const std::string a = TextOf(*config, "quant_algo");
    const std::string b = TextOf(other["quantization"], "quant_algo");
    if (a != b) {
      Problem("configs-agree", "hf_quant_config.json", "quant_algo",
              fmt::format("it says {}, config.json says {}, and engines take one or the other", b, a),
              "write both from one quantization");
    }
    if (TextsOf(*config, "ignore") != TextsOf(other["quantization"], "exclude_modules")) {
      Problem("configs-agree", "hf_quant_config.json", "exclude_modules",
              "it is another list than \"ignore\" in config.json, and engines take one or the other",
              "write both from one quantization");
    }
  }

  // Whether the engine has the algorithm for any kind of layer.
  bool CheckAlgorithm() {
    if (quantization_.algorithm.empty() || !quantization_.known) return true;
    if (quantization_.mixed && facts_.methods.contains(quantization_.algorithm)) {
      for (const auto& [module, algorithm] : quantization_.layers) {
        if (facts_.methods.contains(algorithm)) continue;
        Problem("algorithm", quantization_.file, module,
                fmt::format("{} has no method for {}, and takes the layer for an unquantized one", Title(), algorithm),
                "quantize it with another recipe");
      }
      return true;
    }
    const auto methods = facts_.methods.find(quantization_.algorithm);
    std::string refused = methods == facts_.methods.end() ? "it is not among its algorithms" : "";
    if (methods != facts_.methods.end()) {
      const bool any = std::any_of(methods->second.begin(), methods->second.end(),
                                   [](const auto& kind) { return kind.second.refused.empty(); });
      if (any) return true;
      if (!methods->second.empty()) refused = methods->second.begin()->second.refused;
    }
    Problem("algorithm", quantization_.file, quantization_.algorithm,
            fmt::format("{} refuses it: {}", Title(), refused),
            "quantize with a recipe that the engine loads (quantport quantize --list-recipes)");
    return false;
  }

  const MethodFacts* FindMethod(const std::string& algorithm, LayerKind kind) const {
    const auto methods = facts_.methods.find(algorithm);
    if (methods == facts_.methods.end()) return nullptr;
    const auto method = methods->second.find(kind);
    return method == methods->second.end() ? nullptr : &method->second;
  }

  void CheckLayer(const StoredLayer& layer, const ArchitectureFacts& architecture) {
    const LayerDecision decision = quantization_.algorithm.empty()
                                       ? LayerDecision{}
                                       : engine_.decide(quantization_, architecture, layer.facts->kind, layer.prefix);
    if (!decision.fault.empty()) {
      Problem("fused-parts", quantization_.file, layer.prefix, decision.fault,
              "exclude all parts of a fused layer or none, and quantize them alike");
      return;
    }
    const MethodFacts* method = FindMethod(decision.algorithm, layer.facts->kind);
    if (!decision.algorithm.empty() && method == nullptr) return;  // "algorithm" told
    if (method != nullptr && !method->refused.empty()) {
      Problem("layer-method", quantization_.file, layer.prefix,
              fmt::format("{} has no {} for {}: {}", Title(), decision.algorithm,
                          layer.facts->kind == LayerKind::kExperts ? "experts" : "linears", method->refused),
              "quantize with a recipe that leaves these layers, or in another format");
      return;
    }
    for (const auto& [module, leaves] : layer.modules) CheckModule(layer, module, leaves, decision.algorithm, method);
    CheckParts(layer);
    if (method != nullptr) CheckSharedScales(layer, decision.algorithm);
  }

  void CheckModule(const StoredLayer& layer, const std::string& module, const HubModule& leaves,
                   const std::string& algorithm, const MethodFacts* method) {
    const StoredTensor* weight = leaves.Find("weight");
    const bool plain = weight != nullptr && IsPlainFloat(weight->info.dtype);
    if (method == nullptr && (!plain || leaves.HasScales())) {
      Problem(
          "excluded", quantization_.file, module,
          fmt::format(
              "{} takes the layer {} for an unquantized one, by its own matching of {}; the tensors are quantized",
              Title(), TemplateOf(layer.prefix).text, quantization_.mixed ? "quantized_layers" : "the exclude list"),
          "name the module as the engine calls it, and exclude no more than what is unquantized");
      return;
    }
    if (method == nullptr) return;
    if (plain && !leaves.HasScales()) {
      Problem("not-excluded", quantization_.file, module,
              fmt::format("{} takes the layer {} for {}, and the tensors are not quantized", Title(),
                          TemplateOf(layer.prefix).text, algorithm),
              fmt::format("add \"{}\" to the exclude list", layer.prefix));
      return;
    }
    CheckLeaves(module, leaves, algorithm, *method);
  }

  void CheckLeaves(const std::string& module, const HubModule& leaves, const std::string& algorithm,
                   const MethodFacts& method) {
    std::set<std::string_view> read = {"bias"};
    for (const LeafFacts& leaf : method.leaves) {
      read.insert(leaf.leaf);
      const StoredTensor* tensor = leaves.Find(leaf.leaf);
      if (tensor == nullptr) {
        if (leaf.optional) continue;
        Problem("missing-tensors", {}, JoinName(module, leaf.leaf),
                fmt::format("{} reads a {} for every {} layer, and there is none", Title(), leaf.leaf, algorithm),
                "write the checkpoint again, in a style that the engine reads");
        continue;
      }
      CheckForm(leaf, *tensor, leaves, algorithm);
    }
    for (const auto& [leaf, tensor] : leaves.tensors) {
      if (read.contains(leaf)) continue;
      Problem("left-over", {}, tensor->info.name,
              fmt::format("{} has no parameter for a {} of {}", Title(), leaf, algorithm),
              "write the checkpoint again, in a style that the engine reads");
    }
  }

  // Shapes follow from the weight's own, with as many inputs in a byte as the method packs.
  void CheckForm(const LeafFacts& leaf, const StoredTensor& tensor, const HubModule& leaves,
                 const std::string& algorithm) {
    const StoredTensor* weight = leaves.Find("weight");
    if (weight == nullptr || weight->info.shape.size() != 2) return;
    const bool packed = IsNvfp4(algorithm) || algorithm.find("FP4") != std::string::npos;
    const uint64_t outputs = weight->info.shape[0];
    const uint64_t inputs = weight->info.shape[1] * (packed ? 2 : 1);
    if (tensor.info.dtype != leaf.dtype) {
      Problem("form", {}, tensor.info.name,
              fmt::format("it is {}, {} reads {}", DTypeName(tensor.info.dtype), Title(), DTypeName(leaf.dtype)),
              "write the checkpoint again, in a style that the engine reads");
      return;
    }
    std::vector<uint64_t> wanted;
    for (const SizeRule& size : leaf.shape) {
      // The group of a block scale is the config's, as the engine takes it.
      const bool group = IsNvfp4(algorithm) && leaf.leaf == "weight_scale" && size.of == SizeRule::Of::kInputs;
      const uint64_t divisor = group && quantization_.group_size > 0 ? quantization_.group_size : size.divisor;
      const uint64_t all = size.of == SizeRule::Of::kOutputs ? outputs : size.of == SizeRule::Of::kInputs ? inputs : 1;
      wanted.push_back(CeilDiv(all, divisor));
    }
    if (tensor.info.shape == wanted) return;
    const uint64_t elements = ElementsOf(tensor.info.shape);
    if (elements == 1 && ElementsOf(wanted) == 1) return;
    if (IsNvfp4(algorithm) && leaf.leaf == "weight_scale") {
      Problem("group-size", quantization_.file, tensor.info.name,
              fmt::format("{} takes groups of {}, the tensor is {} where that gives {}", Title(),
                          quantization_.group_size, ShapeText(tensor.info.shape), ShapeText(wanted)),
              "quantize in groups of 16, which is the only size that kernels have");
      return;
    }
    Problem("form", {}, tensor.info.name,
            fmt::format("its shape is {}, {} reads {}", ShapeText(tensor.info.shape), Title(), ShapeText(wanted)),
            "write the checkpoint again, in a style that the engine reads");
  }

  static bool IsNvfp4(std::string_view algorithm) { return algorithm.find("NVFP4") != std::string_view::npos; }

  static uint64_t ElementsOf(const std::vector<uint64_t>& shape) {
    uint64_t product = 1;
    for (const uint64_t size : shape) product *= size;
    return product;
  }

  // All the hub's modules that one layer of the engine holds are there or none is.
  void CheckParts(const StoredLayer& layer) {
    for (const std::string& missing : layer.missing) {
      Problem("missing-tensors", {}, missing,
              fmt::format("{} fills the layer {} from it as well, and it is not there", Title(),
                          TemplateOf(layer.prefix).text),
              "write the checkpoint again from one that is whole");
    }
  }

  // A kernel has one global scale for what lies in one parameter.
  void CheckSharedScales(const StoredLayer& layer, const std::string& algorithm) {
    if (!IsNvfp4(algorithm) || !input_.scalar) return;
    if (layer.facts->kind == LayerKind::kExperts && !engine_.experts_share_scale) return;
    for (const std::vector<const HubModule*>& group : layer.groups) {
      std::optional<float> first;
      for (const HubModule* module : group) {
        const StoredTensor* tensor = module->Find("weight_scale_2");
        const std::optional<float> value = tensor == nullptr ? std::nullopt : input_.scalar(*tensor);
        if (!value) continue;
        if (first && *first != *value) {
          Problem("shared-scales", {}, tensor->info.name,
                  fmt::format("{} takes one weight_scale_2 for the parts of {}, and theirs differ", Title(),
                              TemplateOf(layer.prefix).text),
                  "quantport repair puts them under one global scale");
          break;
        }
        first = value;
      }
    }
  }

  void CheckLeftOver(const StoredLayers& stored, const ArchitectureFacts& architecture) {
    for (const StoredTensor* tensor : stored.left_over) {
      Problem("left-over", {}, tensor->info.name,
              fmt::format("{} has no place for it and {}", Title(),
                          architecture.raises_unknown ? "raises" : "skips it without a word"),
              "give the tensors the hub's names (quantport revert), in the form that the engine reads");
    }
    for (const StoredTensor* tensor : stored.quantized_plain) {
      Problem("layer-method", {}, tensor->info.name,
              fmt::format("{} holds this module unquantized, whatever the config says", Title()),
              "leave it unquantized");
    }
  }

  // Every number below a container is an expert of config.json's count, whether the container is a layer or each of its
  // experts' linears are.
  void CheckExpertNumbers(const StoredLayers& stored) {
    std::map<std::string, std::set<uint64_t>> linears;
    for (const StoredLayer& layer : stored.layers) {
      uint64_t most = 0;
      for (const auto& [part, numbers] : layer.experts)
        most = std::max(most, numbers.empty() ? 0 : *numbers.rbegin() + 1);
      for (const auto& [part, numbers] : layer.experts) CheckNumbers(FillTemplate(part, layer.numbers), numbers, most);
      constexpr std::string_view kExperts = ".experts.";
      const size_t at = layer.facts->kind == LayerKind::kLinear ? layer.prefix.find(kExperts) : std::string::npos;
      if (at == std::string::npos) continue;
      const std::string rest = layer.prefix.substr(at + kExperts.size());
      const std::string number = rest.substr(0, rest.find('.'));
      if (IsDigits(number) && number.size() < 10)
        linears[layer.prefix.substr(0, at + kExperts.size()) + "*" + rest.substr(number.size())].insert(
            std::stoull(number));
    }
    for (const auto& [part, numbers] : linears) CheckNumbers(part, numbers, *numbers.rbegin() + 1);
  }

  // `part`: the name of an expert's module, with * for its number. `most`: what their numbers say, where no config
  // does.
  void CheckNumbers(const std::string& part, const std::set<uint64_t>& numbers, uint64_t most) {
    const uint64_t wanted = std::min<uint64_t>(ExpertCount().value_or(most), 1u << 16);
    for (uint64_t expert = 0; expert < wanted; ++expert) {
      if (numbers.contains(expert)) continue;
      Problem("experts", {}, FillTemplate(part, {std::to_string(expert)}),
              fmt::format("there are to be {} experts, and {} fills all of them", wanted, Title()),
              "write the checkpoint again from one that has every expert");
    }
  }

  std::optional<uint64_t> ExpertCount() const {
    for (const Json* config : {TextConfig(), &input_.configs.config}) {
      if (config == nullptr || !config->is_object()) continue;
      for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts"}) {
        if (const uint64_t count = NumberOf(*config, key); count > 0 && count < 1u << 20) return count;
      }
    }
    return std::nullopt;
  }

  const Json* TextConfig() const {
    const Json& config = input_.configs.config;
    const auto it = config.is_object() ? config.find("text_config") : config.end();
    return it != config.end() && it->is_object() ? &*it : nullptr;
  }

  void CheckLayerNumbers(const StoredLayers& stored) {
    const Json* text = TextConfig();
    const uint64_t layers = NumberOf(text == nullptr ? input_.configs.config : *text, "num_hidden_layers");
    if (stored.blocks.empty() || layers > 1u << 16) return;
    for (uint64_t layer = 0; layer < layers; ++layer) {
      if (stored.blocks.contains(layer)) continue;
      Problem("missing-tensors", {}, fmt::format("layers.{}", layer),
              fmt::format("the config has {} layers, and nothing is stored for this one", layers),
              "write the checkpoint again from one that is whole");
    }
  }

  void CheckCacheScales(const StoredLayers& stored, const ArchitectureFacts& architecture) {
    if (stored.cache_scales.empty() || architecture.reads_cache_scales) return;
    Note("cache-scales", {}, stored.cache_scales.front()->info.name,
         fmt::format("{} reads no scales of this architecture's KV cache, and uses 1", Title()), "");
  }

  const Engine& engine_;
  const EngineFacts& facts_;
  const EngineInput& input_;
  EngineQuantization quantization_;
  Findings findings_;
};

}  // namespace

bool EngineReport::complete() const {
  return std::none_of(findings.begin(), findings.end(), [](const EngineFinding& finding) { return finding.unchecked; });
}

std::vector<EngineFinding> CheckEngine(const Engine& engine, const EngineFacts& facts, const EngineInput& input) {
  return Checks(engine, facts, input).Run();
}

}  // namespace quantport
