// What a recipe does to the modules of a model: ModelOpt's set_quantizer_by_cfg and get_quantization_format on names.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "recipe/format.h"
#include "recipe/recipe.h"

namespace quantport {

// What ModelOpt makes of a module in memory, which decides the quantizers it has.
enum class ModuleKind : uint8_t {
  kLinear,          // weight_quantizer, input_quantizer, output_quantizer
  kConvolution,     // the same
  kEmbedding,       // the same, but its input is never quantized
  kInputOnly,       // norms, activations, pooling: input_quantizer, output_quantizer
  kFusedExperts,    // gate_up_proj_weight_quantizers.0, ..., gate_up_proj_input_quantizer, and so for down_proj
  kBatchedExperts,  // gate_up_proj_weight_quantizer, gate_up_proj_input_quantizer, and so for down_proj
  kAttention,       // q_bmm_quantizer, k_bmm_quantizer, v_bmm_quantizer, p_bmm_quantizer
};

// The hub's modules that one matrix of a module in memory is made of, by its projection ("gate_up_proj"; "" of a
// linear) and expert.
using HubModules = std::map<std::pair<std::string, uint64_t>, std::vector<std::string>>;

struct QuantizableModule {
  std::string name;  // in memory
  ModuleKind kind = ModuleKind::kLinear;
  std::string class_name;  // "Linear", "BatchNorm2d", "LlamaAttention"
  int experts = 0;         // of a container
  bool gated = true;       // whether it has gate_up_proj, and not up_proj
  HubModules hub = {};     // needed where an entry of the recipe MayNameHub
};

using AttributeList = std::shared_ptr<const std::vector<QuantizerAttributes>>;

struct ResolvedQuantizer {
  std::string name;  // below its module; of a fused container's experts without their number
  bool enabled = false;
  AttributeList attributes;  // one, or several that apply one after the other
  int entry = -1;            // of the recipe, that set or enabled it last; -1 where none matched
};

struct ResolvedModule {
  QuantizableModule module;
  std::vector<ResolvedQuantizer> quantizers;
  FormatId format = FormatId::kPlain;
  int block_size = 0;  // inputs that share a scale; 0 where that is not by blocks

  const ResolvedQuantizer* Find(std::string_view quantizer) const;
};

struct ResolvedRecipe {
  std::vector<ResolvedModule> modules;  // in the order given
  std::string kv_cache;                 // "FP8", "INT8", "NVFP4", "NVFP4_AFFINE"; empty where it is not quantized
  std::vector<std::string> by_hub;      // patterns that were matched with the hub's names
};

// Whether a pattern may be written for the names of a hub checkpoint. Those of ModelOpt's general rules are not: they
// list what modules are called in several models, and match nothing in the others.
bool MayNameHub(const RecipeEntry& entry);

// Entries apply in order; patterns match as Python's fnmatch, on the quantizer's name, or for a container's experts
// also on that without plural and number. An entry that MayNameHub and matches no module in memory is matched with the
// hub's names, `<module>.weight_quantizer` or as in DeepSeek's own code `<module>_weight_quantizer`. Errors:
// kUnsupportedRecipe naming recipe, entry and module for settings that ModelOpt can't export or that differ within a
// container; kInvalidRecipe for an unknown parent_class; kUnsupportedRecipe where a recipe asks for weights and no
// module's weight is left to quantize.
Result<ResolvedRecipe> ResolveQuantizers(const Recipe& recipe, const std::vector<QuantizableModule>& modules);

}  // namespace quantport
