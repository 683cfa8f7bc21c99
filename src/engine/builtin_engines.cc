#include "engine/builtin_engines.h"

// builtin_engines.inc, which CMake writes, is a line QUANTPORT_ENGINE(number, "engine", "version", "file") for every
// file.

#define QUANTPORT_ENGINE(number, engine, version, file) \
  __asm__(                                              \
      ".pushsection .rodata\n"                          \
      ".global quantport_engine_" #number               \
      "\n"                                              \
      "quantport_engine_" #number                       \
      ":\n"                                             \
      ".incbin \"" file                                 \
      "\"\n"                                            \
      ".global quantport_engine_end_" #number           \
      "\n"                                              \
      "quantport_engine_end_" #number                   \
      ":\n"                                             \
      ".byte 0\n"                                       \
      ".popsection\n");                                 \
  extern "C" const char quantport_engine_##number[];    \
  extern "C" const char quantport_engine_end_##number[];
#include "builtin_engines.inc"
#undef QUANTPORT_ENGINE

namespace quantport {

std::span<const BuiltInEngine> BuiltInEngines() {
#define QUANTPORT_ENGINE(number, engine, version, file) \
  {engine,                                              \
   version,                                             \
   {quantport_engine_##number, static_cast<size_t>(quantport_engine_end_##number - quantport_engine_##number)}},
  static const BuiltInEngine kEngines[] = {
#include "builtin_engines.inc"
  };
#undef QUANTPORT_ENGINE
  return kEngines;
}

}  // namespace quantport
