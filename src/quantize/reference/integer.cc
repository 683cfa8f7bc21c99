#include <cmath>

#include "quantize/reference/error.h"
#include "quantize/reference/reference.h"

namespace quantport::quantize::reference {
namespace {

// To nearest, ties to even. NaN is 0.
int RoundWithin(float quotient, int smallest, int largest) {
  if (std::isnan(quotient)) return 0;
  const float rounded = std::nearbyint(quotient);
  return static_cast<int>(std::fmin(std::fmax(rounded, static_cast<float>(smallest)), static_cast<float>(largest)));
}

float Rounded(float scale, ScaleRounding rounding, ElementType type) {
  return rounding == ScaleRounding::kToOutput ? RoundTo(type, scale) : scale;
}

// The low four bits as a signed number.
int SignedNibble(int bits) { return (bits & 7) - (bits & 8); }

}  // namespace

void Int8(Row row, const float* scales, size_t group, uint8_t* codes) {
  for (size_t i = 0; i < row.size; ++i) {
    codes[i] = static_cast<uint8_t>(RoundWithin(LoadElement(row, i) / scales[i / group], -128, 127));
  }
}

void Int4(Row even, Row odd, const float* even_scales, const float* odd_scales, size_t group, uint8_t* codes) {
  for (size_t i = 0; i < even.size; ++i) {
    const int low = RoundWithin(LoadElement(even, i) / even_scales[i / group], -8, 7);
    const int high = RoundWithin(LoadElement(odd, i) / odd_scales[i / group], -8, 7);
    codes[i] = static_cast<uint8_t>((low & 15) | (high & 15) << 4);
  }
}

void FromInt8(const uint8_t* codes, size_t size, const float* scales, size_t group, ScaleRounding rounding,
              Output output) {
  for (size_t i = 0; i < size; ++i) {
    output.Store(i,
                 static_cast<float>(static_cast<int8_t>(codes[i])) * Rounded(scales[i / group], rounding, output.type));
  }
}

void FromInt4(const uint8_t* codes, size_t size, const float* even_scales, const float* odd_scales, size_t group,
              ScaleRounding rounding, Output even, Output odd) {
  for (size_t i = 0; i < size; ++i) {
    even.Store(i, static_cast<float>(SignedNibble(codes[i])) * Rounded(even_scales[i / group], rounding, even.type));
    odd.Store(i, static_cast<float>(SignedNibble(codes[i] >> 4)) * Rounded(odd_scales[i / group], rounding, odd.type));
  }
}

ErrorSums Int8Error(Row row, const uint8_t* codes, const float* scales, size_t group) {
  ErrorParts parts;
  AddErrors(
      row, group, 127.0f, [&](size_t i) { return static_cast<float>(static_cast<int8_t>(codes[i])); },
      [&](size_t g) { return scales[g]; }, &parts);
  return parts.Sum(row.size);
}

ErrorSums Int4Error(Row even, Row odd, const uint8_t* codes, const float* even_scales, const float* odd_scales,
                    size_t group) {
  ErrorParts parts;
  AddErrors(
      even, group, 7.0f, [&](size_t i) { return static_cast<float>(SignedNibble(codes[i])); },
      [&](size_t g) { return even_scales[g]; }, &parts);
  AddErrors(
      odd, group, 7.0f, [&](size_t i) { return static_cast<float>(SignedNibble(codes[i] >> 4)); },
      [&](size_t g) { return odd_scales[g]; }, &parts);
  return parts.Sum(even.size + odd.size);
}

}  // namespace quantport::quantize::reference
