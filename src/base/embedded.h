// Files of data/ inside the library. The assembler copies them as they are: half a megabyte as a C++ literal would be
// the slowest file to compile.
#pragma once

#include <cstddef>
#include <string_view>

// Puts the bytes of `file` at the symbol `name`, for QUANTPORT_EMBEDDED(name) to give their text.
#define QUANTPORT_EMBED(name, file)   \
  __asm__(                            \
      ".pushsection .rodata\n"        \
      ".global " #name "\n" #name     \
      ":\n"                           \
      ".incbin \"" file               \
      "\"\n"                          \
      ".global " #name "_end\n" #name \
      "_end:\n"                       \
      ".byte 0\n"                     \
      ".popsection\n");               \
  extern "C" const char name[];       \
  extern "C" const char name##_end[];

#define QUANTPORT_EMBEDDED(name) \
  std::string_view { name, static_cast<size_t>(name##_end - name) }
