#include "format/builtin_quantizers.h"

#include "base/embedded.h"

// builtin_quantizers.inc, which CMake writes, is a line QUANTPORT_QUANTIZERS(number, "file") for every version.
#define QUANTPORT_QUANTIZERS(number, file) QUANTPORT_EMBED(quantport_quantizers_##number, file)
#include "builtin_quantizers.inc"
#undef QUANTPORT_QUANTIZERS

namespace quantport {

std::span<const std::string_view> BuiltInQuantizers() {
#define QUANTPORT_QUANTIZERS(number, file) QUANTPORT_EMBEDDED(quantport_quantizers_##number),
  static const std::string_view kQuantizers[] = {
#include "builtin_quantizers.inc"
  };
#undef QUANTPORT_QUANTIZERS
  return kQuantizers;
}

}  // namespace quantport
