#include "exec/rescale.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <span>

#include "base/float8.h"

namespace quantport {
namespace {

float HalfToFloat(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const int mantissa = half & 1023;
  const float value = exponent == 0    ? std::ldexp(static_cast<float>(mantissa), -24)
                      : exponent == 31 ? (mantissa == 0 ? INFINITY : NAN)
                                       : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
  return (half & 0x8000) != 0 ? -value : value;
}

// The number a stored scalar is, where its dtype is one of those scales have.
std::optional<double> ScalarValue(DType dtype, std::span<const std::byte> bytes) {
  uint32_t bits = 0;
  std::memcpy(&bits, bytes.data(), std::min(bytes.size(), sizeof bits));
  float value = 0;
  switch (dtype) {
    case DType::kF32:
      break;
    case DType::kBF16:
      bits <<= 16;
      break;
    case DType::kF16:
      return HalfToFloat(static_cast<uint16_t>(bits));
    default:
      return std::nullopt;
  }
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

double CodeValue(DType dtype, int code) {
  return dtype == DType::kI8 ? static_cast<double>(static_cast<int8_t>(code)) : DecodeE4m3(static_cast<uint8_t>(code));
}

uint8_t EncodeValue(DType dtype, double value) {
  if (dtype != DType::kI8) return EncodeE4m3(value);
  return static_cast<uint8_t>(static_cast<int8_t>(std::clamp(std::nearbyint(value), -128.0, 127.0)));
}

}  // namespace

Result<CommonScale> FindCommonScale(const std::string& leaf, DType dtype, bool reciprocal,
                                    const std::vector<std::vector<std::byte>>& scalars,
                                    const std::vector<std::string>& names) {
  CommonScale result;
  for (size_t i = 0; i < scalars.size(); ++i) {
    const auto value = ScalarValue(dtype, scalars[i]);
    if (!value || !std::isfinite(*value) || *value <= 0) {
      return Error{ErrorKind::kQuantConversionUnsupported,
                   fmt::format("{} is no positive number, so weights can't be put under a common scale", leaf),
                   {},
                   names[i],
                   "the export is broken here: quantize this layer again"};
    }
    const double scale = reciprocal ? 1.0 / *value : *value;
    result.scales.push_back(scale);
    if (scale > result.common) {
      result.common = scale;
      result.winner = i;
    }
  }
  return result;
}

RescaledCodes RescaleCodes(ScaleStep::Kind kind, DType dtype, double factor) {
  RescaledCodes codes;
  for (int code = 0; code < 256; ++code) {
    const auto at = static_cast<size_t>(code);
    const double exact = CodeValue(dtype, code) * factor;
    uint8_t rounded = std::isnan(exact) || factor == 1.0 ? static_cast<uint8_t>(code) : EncodeValue(dtype, exact);
    if (kind == ScaleStep::Kind::kBlockScales && exact > 0 && rounded == 0) rounded = 1;
    codes.code[at] = rounded;
    if (std::isnan(exact)) continue;
    const double error = CodeValue(dtype, rounded) - exact;
    codes.value[at] = exact;
    codes.squared[at] = error * error;
  }
  return codes;
}

void RescaleTally::Add(const std::string& tensor, const std::string& scalar, const RescaledCodes& codes,
                       const std::array<uint64_t, 256>& count) {
  if (entries_.empty() || entries_.back().tensor != tensor || entries_.back().scalar != scalar) {
    entries_.push_back({tensor, scalar, 0, 0, 0, 0});
    squares_ = errors_ = 0;
  }
  RescaleError& entry = entries_.back();
  for (size_t code = 0; code < count.size(); ++code) {
    if (count[code] == 0) continue;
    const auto times = static_cast<double>(count[code]);
    entry.elements += count[code];
    squares_ += times * codes.value[code] * codes.value[code];
    errors_ += times * codes.squared[code];
    if (codes.squared[code] == 0) continue;
    entry.changed += count[code];
    entry.largest_relative =
        std::max(entry.largest_relative, std::sqrt(codes.squared[code]) / std::fabs(codes.value[code]));
  }
  entry.rms_relative = squares_ > 0 ? std::sqrt(errors_ / squares_) : 0;
}

}  // namespace quantport
