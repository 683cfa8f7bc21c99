// What quantizing lost, and the order in which it is summed.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace quantport::quantize {

// Over all elements that were added. Those that are not finite, before or after, count as elements and in nothing else.
struct ErrorSums {
  double squared_error = 0;
  double squares = 0;  // of the original elements
  float max_error = 0;
  uint64_t clipped = 0;  // elements beyond the largest value that their scale can express
  uint64_t elements = 0;

  void Add(const ErrorSums& other);
};

// Blocks whose powers of two became scales of NVFP4, and those of them that kept their numbers.
struct CastBlocks {
  uint64_t all = 0;
  uint64_t exact = 0;

  void Add(const CastBlocks& other) {
    all += other.all;
    exact += other.exact;
  }
};

// The sums of one row on their way. The k-th element of a group goes to part k % 16, whatever the length of a vector,
// and parts are added in their order at the end. The square of an F32 is exact in F64, so that neither does a fused
// operation show: all targets and the reference give the same bits.
struct ErrorParts {
  static constexpr size_t kParts = 16;
  alignas(64) std::array<double, kParts> squared_error = {};
  alignas(64) std::array<double, kParts> squares = {};
  float max_error = 0;
  uint64_t clipped = 0;

  void Add(size_t part, float original, float dequantized, float limit);
  // As those of a row of `elements`.
  ErrorSums Sum(size_t elements) const;
};

// The largest magnitude that is not clipped where `largest` is that of a code. A scale that is amax / 448, rounded, may
// miss amax by one part in 2^24; that clips nothing.
inline float ErrorLimit(float largest, float scale) { return largest * std::fabs(scale) * (1.0f + 0x1p-16f); }

}  // namespace quantport::quantize
