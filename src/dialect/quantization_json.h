// Where config files keep what they say of a quantization.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace quantport {

// Lists of modules left alone or chosen, under the names that ModelOpt, compressed-tensors, fine-grained FP8,
// bitsandbytes, AWQ and Quark give them.
inline constexpr std::array<std::string_view, 8> kModuleListKeys = {
    "exclude_modules",    "ignore",  "modules_to_not_convert",      "ignored_layers", "llm_int8_skip_modules",
    "modules_to_convert", "exclude", "modules_in_block_to_quantize"};
// Of those, the lists of what is quantized; all others name what is not.
inline constexpr std::array<std::string_view, 2> kChosenListKeys = {"modules_to_convert",
                                                                    "modules_in_block_to_quantize"};

// The objects of a config file that describe a quantization.
std::vector<Json*> FindQuantizations(Json* config);

}  // namespace quantport
