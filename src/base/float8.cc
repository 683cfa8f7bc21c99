#include "base/float8.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace quantport {
namespace {

constexpr double kLargest = 448.0;
constexpr int kMinExponent = -6;  // of normal numbers
constexpr int kMantissaBits = 3;
constexpr uint8_t kNan = 0x7F;

}  // namespace

float DecodeE4m3(uint8_t code) {
  const int magnitude = code & 0x7F;
  if (magnitude == kNan) return std::numeric_limits<float>::quiet_NaN();
  const int exponent = magnitude >> kMantissaBits;
  const int mantissa = magnitude & 7;
  const double value = exponent == 0 ? std::ldexp(mantissa, kMinExponent - kMantissaBits)
                                     : std::ldexp(8 + mantissa, exponent - 7 - kMantissaBits);
  return static_cast<float>((code & 0x80) != 0 ? -value : value);
}

uint8_t EncodeE4m3(double value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | kNan;
  if (magnitude >= kLargest) return sign | 0x7E;
  // The step between neighbours at this size; subnormals all have the smallest normal's.
  const int exponent = magnitude == 0 ? kMinExponent : std::max(kMinExponent, std::ilogb(magnitude));
  const double steps = std::nearbyint(std::ldexp(magnitude, kMantissaBits - exponent));
  // A carry into the next exponent, or from subnormal to normal, is an addition in this encoding.
  const int code = ((exponent - kMinExponent) << kMantissaBits) + static_cast<int>(steps);
  return sign | static_cast<uint8_t>(code);
}

}  // namespace quantport
