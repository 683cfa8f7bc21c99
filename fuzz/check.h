// What a fuzz target claims about an input; where it does not hold, the program stops and the input is kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

// libFuzzer's entry point, declared here since it gives no header.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace quantport::fuzz {

inline void Check(bool holds, const char* claim) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", claim);
  std::abort();
}

}  // namespace quantport::fuzz
