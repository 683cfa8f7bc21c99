// The files of engine facts that were linked into the library.
#pragma once

#include <span>
#include <string_view>

namespace quantport {

struct BuiltInEngine {
  std::string_view engine;   // "vllm"
  std::string_view version;  // "0.32.0"
  std::string_view json;     // the text of data/engines/<engine>-<version>.json
};

// By engine, the oldest version first.
std::span<const BuiltInEngine> BuiltInEngines();

}  // namespace quantport
