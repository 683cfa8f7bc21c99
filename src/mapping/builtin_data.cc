#include "mapping/builtin_data.h"

#include "base/embedded.h"

// builtin_mappings.inc, which CMake writes, is a line QUANTPORT_MAPPING(number, "version", "file") for every version.

#define QUANTPORT_MAPPING(number, version, file) QUANTPORT_EMBED(quantport_mapping_##number, file)
#include "builtin_mappings.inc"
#undef QUANTPORT_MAPPING

namespace quantport {

std::span<const BuiltInMapping> BuiltInMappings() {
#define QUANTPORT_MAPPING(number, version, file) {version, QUANTPORT_EMBEDDED(quantport_mapping_##number)},
  static const BuiltInMapping kMappings[] = {
#include "builtin_mappings.inc"
  };
#undef QUANTPORT_MAPPING
  return kMappings;
}

}  // namespace quantport
