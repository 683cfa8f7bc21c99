// TensorRT-LLM's PyTorch backend, from reading its source (_torch/model_config.py, models/modeling_utils.py): nothing
// here was held to the engine itself.
#include <algorithm>

#include "base/text.h"
#include "engine/engine.h"

namespace quantport {
namespace {

// hf_quant_config.json counts where both are there; it takes the form of either for the other.
EngineQuantization Read(const QuantizationConfigs& configs, const ArchitectureFacts&, std::vector<EngineFinding>*) {
  EngineQuantization read;
  const Json* quantization = nullptr;
  if (configs.quant_config.is_object() && configs.quant_config.contains("quantization")) {
    read.file = "hf_quant_config.json";
    quantization = &configs.quant_config["quantization"];
    read.excludes = TextsOf(*quantization, "exclude_modules");
  } else if ((quantization = FindQuantization(configs.config)) != nullptr) {
    read.file = "config.json";
    read.excludes = TextsOf(*quantization, "ignore");
    const std::string method = TextOf(*quantization, "quant_method");
    if (method == "fp8" && quantization->contains("weight_block_size")) {
      read.algorithm = "fp8-tiles";
      read.excludes = TextsOf(*quantization, "modules_to_not_convert");
      return read;
    }
    read.known = method == "modelopt";
  }
  if (quantization == nullptr) return read;
  read.algorithm = TextOf(*quantization, "quant_algo");
  read.group_size = NumberOf(*quantization, "group_size");
  read.mixed = read.algorithm == "MIXED_PRECISION";
  const auto layers = quantization->find("quantized_layers");
  if (read.mixed && layers != quantization->end() && layers->is_object()) {
    for (const auto& [module, scheme] : layers->items()) {
      if (scheme.is_object()) read.layers[module] = TextOf(scheme, "quant_algo");
    }
  }
  if (read.group_size == 0) read.group_size = 16;
  return read;
}

LayerDecision Decide(const EngineQuantization& quantization, const ArchitectureFacts& architecture, LayerKind,
                     const std::string& prefix) {
  for (const std::string& entry : quantization.excludes) {
    if (GlobMatch(entry, prefix)) return {};
  }
  if (quantization.mixed) return ListedAlgorithm(quantization.layers, architecture, prefix, {prefix});
  return {quantization.algorithm, {}};
}

}  // namespace

const Engine kTensorRtLlm = {"tensorrt-llm", "TensorRT-LLM", Read, Decide, true};

}  // namespace quantport
