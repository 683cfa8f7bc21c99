// What a module's quantizers amount to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/format_id.h"
#include "recipe/recipe.h"

namespace quantport {

// The format of a weight and its input, or why ModelOpt's export has none. `input`: nullptr where it is disabled.
// Follows get_quantization_format, and refuses what that takes for a format whose export it then does not follow.
struct FormatOrReason {
  FormatId format = FormatId::kPlain;
  std::string reason;  // empty where there is a format
};
FormatOrReason FormatOf(const std::vector<QuantizerAttributes>& weight, const QuantizerAttributes* input);

// block_sizes[-1] of the weight, 0 without.
int BlockSizeOf(const std::vector<QuantizerAttributes>& weight);

}  // namespace quantport
