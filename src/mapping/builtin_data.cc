#include "mapping/builtin_data.h"

// The assembler copies the file as it is: half a megabyte as a C++ literal would be the slowest file to compile.
__asm__(
    ".pushsection .rodata\n"
    ".global quantport_builtin_mapping\n"
    "quantport_builtin_mapping:\n"
    ".incbin \"" QUANTPORT_MAPPING_FILE
    "\"\n"
    ".global quantport_builtin_mapping_end\n"
    "quantport_builtin_mapping_end:\n"
    ".byte 0\n"
    ".popsection\n");

extern "C" const char quantport_builtin_mapping[];
extern "C" const char quantport_builtin_mapping_end[];

namespace quantport {

std::string_view BuiltInMapping() {
  return {quantport_builtin_mapping, static_cast<size_t>(quantport_builtin_mapping_end - quantport_builtin_mapping)};
}

}  // namespace quantport
