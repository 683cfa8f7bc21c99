// The element types of safetensors 0.8, sub-byte ones included.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace quantport {

// In the order of the official library, which sorts tensors by it when it writes a file.
enum class DType : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3FNUZ,
  kF8E5M2FNUZ,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

inline constexpr int kDTypeCount = 22;

// The name in a safetensors header, for example "F8_E4M3".
std::string_view DTypeName(DType dtype);

// Width of one element in bits: 4 and 6 for the packed types, a multiple of 8 for all others.
int DTypeBits(DType dtype);

// The type of a header name, or nothing for an unknown one.
std::optional<DType> ParseDType(std::string_view name);

// True for types whose elements are numbers to multiply (floats), false for integers and bytes.
bool IsFloat(DType dtype);

}  // namespace quantport
