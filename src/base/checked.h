// Arithmetic that notices overflow: sizes and offsets come from strangers' headers.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>

namespace quantport {

template <std::unsigned_integral T>
std::optional<T> CheckedMul(T a, T b) {
  T out;
  if (__builtin_mul_overflow(a, b, &out)) return std::nullopt;
  return out;
}

template <std::unsigned_integral T>
std::optional<T> CheckedAdd(T a, T b) {
  T out;
  if (__builtin_add_overflow(a, b, &out)) return std::nullopt;
  return out;
}

inline uint64_t CeilDiv(uint64_t a, uint64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

inline uint64_t RoundUp(uint64_t value, uint64_t multiple) { return CeilDiv(value, multiple) * multiple; }

}  // namespace quantport
