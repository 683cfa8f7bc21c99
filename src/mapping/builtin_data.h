// The mapping file that was linked into the library.
#pragma once

#include <string_view>

namespace quantport {

// The text of data/mappings/transformers-<version>.json.
std::string_view BuiltInMapping();

}  // namespace quantport
