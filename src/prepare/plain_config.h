// A config.json as that of an unquantized model.
#pragma once

#include <string>
#include <string_view>

#include "quantport/error.h"

namespace quantport {

// Without everything that describes a quantization. Errors: kInvalidConfig naming `file`.
Result<std::string> WithoutQuantization(const std::string& config, std::string_view file);

// The type it states for the model's numbers, "bfloat16"; "" where it states none.
std::string StatedDType(const std::string& config);

}  // namespace quantport
