// Scalar encoding and decoding of the small formats, as ModelOpt's tensor classes do it in torch.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace quantport::quantize {

inline constexpr float kE4m3Max = 448.0f;
inline constexpr float kE2m1Max = 6.0f;
inline constexpr uint8_t kE4m3Nan = 0x7F;
inline constexpr uint8_t kE4m3One = 0x38;

// As torch casts: to nearest, ties to even, and above 464 NaN instead of the largest. Infinity is NaN, the sign stays.
inline uint8_t EncodeE4m3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint8_t sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > std::bit_cast<uint32_t>(464.0f)) return sign | kE4m3Nan;
  if (magnitude < std::bit_cast<uint32_t>(0x1p-6f)) {
    // 2^14 has a step of 2^-9, that of subnormals: the sum's last bits count them.
    return sign | static_cast<uint8_t>(std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14f));
  }
  const uint32_t rebased = magnitude - (120u << 23);
  return sign | static_cast<uint8_t>((rebased + 0x7FFFF + (rebased >> 20 & 1)) >> 20);
}

constexpr float DecodeE4m3(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24;
  const uint32_t magnitude = code & 0x7F;
  if (magnitude == kE4m3Nan) return std::bit_cast<float>(sign | 0x7FC00000);
  const float value = std::bit_cast<float>(magnitude << 20) * 0x1p120f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

// Of every code: subnormal scales would be slow to compute.
inline constexpr auto kE4m3Values = [] {
  std::array<float, 256> values = {};
  for (size_t code = 0; code < values.size(); ++code) values[code] = DecodeE4m3(static_cast<uint8_t>(code));
  return values;
}();

inline constexpr std::array<float, 16> kE2m1Values = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                                      -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
// Halfway between neighbours.
inline constexpr std::array<float, 7> kE2m1Bounds = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};

// ModelOpt's NVFP4: ties to the even code, no sign for either zero, NaN as the largest.
inline uint8_t EncodeE2m1ToEven(float value) {
  const float magnitude = std::fabs(value);
  uint8_t code = 0;
  for (size_t i = 0; i < kE2m1Bounds.size(); ++i) {
    const bool up = i % 2 == 1 ? magnitude >= kE2m1Bounds[i] : magnitude > kE2m1Bounds[i];
    code += up || std::isnan(value);
  }
  return value < 0 ? code | 8 : code;
}

// ModelOpt's MXFP4: ties to zero, and the sign of everything that is not above zero, both zeros and NaN included.
inline uint8_t EncodeE2m1ToZero(float value) {
  uint8_t code = value > 0 ? 0 : 8;
  for (const float bound : kE2m1Bounds) code += std::fabs(value) > bound;
  return code;
}

// 2^(code - 127); NaN for 255.
inline float DecodeE8m0(uint8_t code) {
  if (code == 255) return std::numeric_limits<float>::quiet_NaN();
  return code == 0 ? 0x1p-127f : std::bit_cast<float>(static_cast<uint32_t>(code) << 23);
}

// The smallest e with amax / largest <= 2^e, as its E8M0 code. Exact, where ModelOpt takes ceil(log2(amax / largest))
// in F32: equal for every BF16 and F16 amax (tried for all of them), and for F32 but where log2 rounds to a whole
// number.
inline uint8_t EncodeE8m0(float amax, float largest) {
  if (!(amax > 0)) return 0;
  int amax_exponent, largest_exponent;
  const float amax_fraction = std::frexp(amax, &amax_exponent);
  const float largest_fraction = std::frexp(largest, &largest_exponent);
  const int exponent = amax_exponent - largest_exponent + (amax_fraction > largest_fraction ? 1 : 0);
  if (std::isinf(amax)) return 254;
  return static_cast<uint8_t>(exponent < -127 ? 0 : exponent + 127);
}

}  // namespace quantport::quantize
