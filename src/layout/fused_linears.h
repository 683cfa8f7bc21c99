// Linears that inference engines load as one, by data/fused_linears.json: what such linears have once, a global
// scale or a format, must be the same in all of them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quantport {

struct FusedLinear {
  std::string name;                  // what engines call it: "qkv_proj"
  std::vector<std::string> parts;    // leaf names of its linears, in order
  std::vector<std::string> engines;  // that load it so: "vllm", "sglang"
};

// All of them.
std::span<const FusedLinear> FusedLinears();

// The one that a module becomes a part of, by its leaf name; null where it stays by itself.
const FusedLinear* FindFusedLinear(std::string_view module);

}  // namespace quantport
