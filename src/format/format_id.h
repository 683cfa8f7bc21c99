// The one name of a quantized format, from recognizing stored tensors and reading recipes to kernels.
#pragma once

#include <cstdint>
#include <string_view>

namespace quantport {

// How a weight is stored. What each looks like stands in its family's file beside this one; docs/layouts.md describes
// them all.
enum class FormatId : uint8_t {
  kPlain,             // one tensor, not quantized
  kNvfp4,             // ModelOpt NVFP4 with a static activation scale
  kNvfp4WeightOnly,   // the same without one (W4A16_NVFP4)
  kNvfp4Awq,          // NVFP4 with a scale for each input column
  kNvfp4Svd,          // NVFP4 with low-rank factors
  kW4A8Nvfp4Fp8,      // NVFP4 in blocks of 32 with FP8 activations
  kFp8PerTensor,      // FP8 with one scale
  kFp8PerChannel,     // FP8 with a scale for each row
  kFp8Block,          // FP8 with a scale for each tile
  kFp8Group,          // FP8 with a scale for each group within a row
  kMxfp8,             // FP8 in blocks of 32 with power-of-two scales
  kMxfp6,             // FP6, likewise, 4 values in 3 bytes
  kMxfp4,             // FP4, likewise, 2 values a byte
  kW4A8Mxfp4Fp8,      // the same with FP8 activations
  kMxfp4Blocks,       // gpt-oss: FP4 blocks as a dimension of their own
  kFp4Block,          // DeepSeek: FP4 values as I8
  kInt4,              // ModelOpt INT4, two rows a byte
  kW4A8Awq,           // the same with a second scale and FP8 activations
  kInt8,              // ModelOpt INT8, weight only
  kInt8SmoothQuant,   // ModelOpt INT8 with static activations
  kIntQuantized,      // compressed-tensors or Quark INT8
  kPackQuantized,     // compressed-tensors: integers of 1 to 8 bits in 32-bit words
  kNvfp4Pack,         // compressed-tensors NVFP4
  kMxfp4Pack,         // compressed-tensors MXFP4
  kGptq,              // GPTQ: integers packed along the input
  kAwq,               // AutoAWQ GEMM: integers packed along the output
  kBitsAndBytes4Bit,  // bitsandbytes NF4 or FP4, flattened
  kBitsAndBytes8Bit,  // bitsandbytes LLM.int8()
  kQuarkInt4,         // AMD Quark INT4 in 32-bit words
  kUnrecognized,      // tensors that are no format's: renamed together, nothing else
};

// For people and JSON: "NVFP4", "FP8", "plain", ...
std::string_view FormatName(FormatId format);

}  // namespace quantport
