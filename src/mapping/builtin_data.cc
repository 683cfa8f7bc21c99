#include "mapping/builtin_data.h"

// builtin_mappings.inc, which CMake writes, is a line QUANTPORT_MAPPING(number, "version", "file") for every version.

// The assembler copies the files as they are: half a megabyte as a C++ literal would be the slowest file to compile.
#define QUANTPORT_MAPPING(number, version, file)      \
  __asm__(                                            \
      ".pushsection .rodata\n"                        \
      ".global quantport_mapping_" #number            \
      "\n"                                            \
      "quantport_mapping_" #number                    \
      ":\n"                                           \
      ".incbin \"" file                               \
      "\"\n"                                          \
      ".global quantport_mapping_end_" #number        \
      "\n"                                            \
      "quantport_mapping_end_" #number                \
      ":\n"                                           \
      ".byte 0\n"                                     \
      ".popsection\n");                               \
  extern "C" const char quantport_mapping_##number[]; \
  extern "C" const char quantport_mapping_end_##number[];
#include "builtin_mappings.inc"
#undef QUANTPORT_MAPPING

namespace quantport {

std::span<const BuiltInMapping> BuiltInMappings() {
#define QUANTPORT_MAPPING(number, version, file) \
  {version,                                      \
   {quantport_mapping_##number, static_cast<size_t>(quantport_mapping_end_##number - quantport_mapping_##number)}},
  static const BuiltInMapping kMappings[] = {
#include "builtin_mappings.inc"
  };
#undef QUANTPORT_MAPPING
  return kMappings;
}

}  // namespace quantport
