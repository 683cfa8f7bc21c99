// Other names for the tensors of quantized weights: what transformers' quantizers rename at load (data/quantizers).
//
// A format has one name for each of its tensors (leaves.h). Checkpoints spell some otherwise: DeepSeek-V4 has `scale`
// for weight_scale_inv. Weights are recognized by the format's name, however they are spelled.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace quantport {

struct LeafSpelling {
  std::string name;        // below the module: "scale", "weight_quantizer.scale"
  std::string leaf;        // the format's name for it: "weight_scale_inv"
  bool in_memory = false;  // the name is memory's and the format's is the checkpoint's; else the other way round
};

// Each once, of all versions of transformers together, and one more that engines alone read.
std::span<const LeafSpelling> LeafSpellings();

}  // namespace quantport
