#include "format/builtin_quantizers.h"

// builtin_quantizers.inc, which CMake writes, is a line QUANTPORT_QUANTIZERS(number, "file") for every version.
#define QUANTPORT_QUANTIZERS(number, file)               \
  __asm__(                                               \
      ".pushsection .rodata\n"                           \
      ".global quantport_quantizers_" #number            \
      "\n"                                               \
      "quantport_quantizers_" #number                    \
      ":\n"                                              \
      ".incbin \"" file                                  \
      "\"\n"                                             \
      ".global quantport_quantizers_end_" #number        \
      "\n"                                               \
      "quantport_quantizers_end_" #number                \
      ":\n"                                              \
      ".byte 0\n"                                        \
      ".popsection\n");                                  \
  extern "C" const char quantport_quantizers_##number[]; \
  extern "C" const char quantport_quantizers_end_##number[];
#include "builtin_quantizers.inc"
#undef QUANTPORT_QUANTIZERS

namespace quantport {

std::span<const std::string_view> BuiltInQuantizers() {
#define QUANTPORT_QUANTIZERS(number, file) \
  {quantport_quantizers_##number,          \
   static_cast<size_t>(quantport_quantizers_end_##number - quantport_quantizers_##number)},
  static const std::string_view kQuantizers[] = {
#include "builtin_quantizers.inc"
  };
#undef QUANTPORT_QUANTIZERS
  return kQuantizers;
}

}  // namespace quantport
