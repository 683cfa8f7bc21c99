// ModelOpt's names for what a module's quantizers amount to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "recipe/recipe.h"

namespace quantport {

enum class QuantFormat : uint8_t {
  kNone,
  kFp8,                    // per tensor
  kFp8PerChannelPerToken,  // weight per output channel
  kFp8Block,               // weight in square tiles
  kMxfp8,
  kMxfp4,
  kNvfp4,
  kW4A16Nvfp4,
  kW4A8Nvfp4Fp8,
  kW4A8Mxfp4Fp8,
  kInt8,            // weight per output channel, input per tensor
  kInt8WeightOnly,  // weight per output channel
  kInt4,            // in groups of inputs; ModelOpt calls it int4_awq, searched or not
  kInt4Fp8,         // INT4 that is rounded to FP8 while serving; w4a8_awq
};

// "fp8", "w4a16_nvfp4", ..., as get_quantization_format says it; empty for kNone.
std::string_view QuantFormatName(QuantFormat format);

// The format of a weight and its input, or why ModelOpt's export has none. `input`: nullptr where it is disabled.
// Follows get_quantization_format, and refuses what that takes for a format whose export it then does not follow.
struct FormatOrReason {
  QuantFormat format = QuantFormat::kNone;
  std::string reason;  // empty where there is a format
};
FormatOrReason FormatOf(const std::vector<QuantizerAttributes>& weight, const QuantizerAttributes* input);

// block_sizes[-1] of the weight, 0 without.
int BlockSizeOf(const std::vector<QuantizerAttributes>& weight);

}  // namespace quantport
