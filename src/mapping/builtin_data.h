// The mapping files that were linked into the library.
#pragma once

#include <span>
#include <string_view>

namespace quantport {

struct BuiltInMapping {
  std::string_view version;  // of transformers, "5.17.0"
  std::string_view json;     // the text of data/mappings/transformers-<version>.json
};

// Oldest version first; never empty.
std::span<const BuiltInMapping> BuiltInMappings();

}  // namespace quantport
