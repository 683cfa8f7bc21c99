// The elements that weights are read as, and the rows and matrices that kernels see.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace quantport::quantize {

enum class ElementType : uint8_t { kBF16, kF16, kF32 };

constexpr size_t ElementBytes(ElementType type) { return type == ElementType::kF32 ? 4 : 2; }

// Elements that lie side by side, little-endian, at any alignment.
struct Row {
  const uint8_t* data;
  ElementType type;
  size_t size;

  Row Slice(size_t first, size_t count) const { return {data + first * ElementBytes(type), type, count}; }
};

// `rows` rows of `columns` elements without gaps: a whole tensor, or the part of it that a caller has at hand.
struct Matrix {
  std::span<const uint8_t> bytes;
  ElementType type;
  size_t rows;
  size_t columns;

  Row RowAt(size_t row) const { return {bytes.data() + row * columns * ElementBytes(type), type, columns}; }
  // All rows as one.
  Row Flat() const { return {bytes.data(), type, rows * columns}; }
};

inline float FromBf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// To nearest, ties to even; NaN keeps its sign.
inline uint16_t ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x0040);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline float FromF16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t magnitude = half & 0x7FFF;
  if (magnitude >= 0x7C00) return std::bit_cast<float>(sign | 0x7F800000 | (magnitude & 0x3FF) << 13);
  // 2^112 moves the exponent's bias from 15 to 127, and makes subnormals normal.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

// To nearest, ties to even; beyond 65520 infinity.
inline uint16_t ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return sign | 0x7E00;
  if (magnitude >= 0x477FF000) return sign | 0x7C00;
  if (magnitude < 0x38800000) {
    // Adding 0.5 rounds at 2^-24, the step of subnormals.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3F000000);
  }
  const uint32_t rebased = magnitude - (112u << 23);
  return sign | static_cast<uint16_t>((rebased + 0xFFF + (rebased >> 13 & 1)) >> 13);
}

inline float LoadElement(const Row& row, size_t index) {
  if (row.type == ElementType::kF32) {
    float value;
    std::memcpy(&value, row.data + 4 * index, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, row.data + 2 * index, sizeof bits);
  return row.type == ElementType::kBF16 ? FromBf16(bits) : FromF16(bits);
}

// `value` rounded to what a tensor of `type` can hold.
inline float RoundTo(ElementType type, float value) {
  if (type == ElementType::kBF16) return FromBf16(ToBf16(value));
  if (type == ElementType::kF16) return FromF16(ToF16(value));
  return value;
}

// Where dequantized elements go.
struct Output {
  uint8_t* data;
  ElementType type;

  void Store(size_t index, float value) const {
    if (type == ElementType::kF32) {
      std::memcpy(data + 4 * index, &value, sizeof value);
    } else {
      const uint16_t bits = type == ElementType::kBF16 ? ToBf16(value) : ToF16(value);
      std::memcpy(data + 2 * index, &bits, sizeof bits);
    }
  }
  Output At(size_t index) const { return {data + index * ElementBytes(type), type}; }
};

}  // namespace quantport::quantize
