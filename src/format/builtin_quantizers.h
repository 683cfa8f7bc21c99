// What the quantizers of transformers rename, as data inside the library: one text for every version in
// data/quantizers.
#pragma once

#include <span>
#include <string_view>

namespace quantport {

std::span<const std::string_view> BuiltInQuantizers();

}  // namespace quantport
