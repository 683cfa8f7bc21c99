#include "base/float8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace quantport {
namespace {

constexpr int kLargestCode = 0x7E;

bool IsNanCode(int code) { return (code & 0x7F) == 0x7F; }

// What the format's definition says of a code, written from its three fields.
double Defined(int code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  const double magnitude =
      exponent == 0 ? mantissa / 8.0 * std::exp2(-6) : (1 + mantissa / 8.0) * std::exp2(exponent - 7);
  return code >= 0x80 ? -magnitude : magnitude;
}

uint8_t Code(int code) { return static_cast<uint8_t>(code); }

TEST(Float8Test, EveryCodeDecodesToWhatTheFormatDefines) {
  for (int code = 0; code < 256; ++code) {
    const float value = DecodeE4m3(Code(code));
    if (IsNanCode(code)) {
      EXPECT_TRUE(std::isnan(value)) << code;
      continue;
    }
    EXPECT_EQ(static_cast<double>(value), Defined(code)) << code;
    EXPECT_EQ(std::signbit(value), code >= 0x80) << code;
  }
}

TEST(Float8Test, EveryCodeComesBack) {
  for (int code = 0; code < 256; ++code) {
    const uint8_t back = EncodeE4m3(static_cast<double>(DecodeE4m3(Code(code))));
    if (IsNanCode(code)) {
      EXPECT_TRUE(IsNanCode(back)) << code;
    } else {
      EXPECT_EQ(back, code);
    }
  }
}

TEST(Float8Test, AMidpointGoesToTheEvenCode) {
  for (int code = 0; code < kLargestCode; ++code) {
    const double midpoint = (Defined(code) + Defined(code + 1)) / 2;
    const int even = code % 2 == 0 ? code : code + 1;
    EXPECT_EQ(EncodeE4m3(midpoint), even);
    EXPECT_EQ(EncodeE4m3(-midpoint), even | 0x80);
  }
}

TEST(Float8Test, BesideAMidpointTheNearerCodeWins) {
  for (int code = 0; code < kLargestCode; ++code) {
    const double midpoint = (Defined(code) + Defined(code + 1)) / 2;
    EXPECT_EQ(EncodeE4m3(std::nextafter(midpoint, 0.0)), code);
    EXPECT_EQ(EncodeE4m3(std::nextafter(midpoint, 1e3)), code + 1);
  }
}

TEST(Float8Test, SaturatesBeyondTheLargest) {
  for (const double value : {448.0, 448.1, 463.9, 464.0, 480.0, 1e9, std::numeric_limits<double>::max(),
                             std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(EncodeE4m3(value), 0x7E) << value;
    EXPECT_EQ(EncodeE4m3(-value), 0xFE) << value;
  }
}

TEST(Float8Test, NanStaysNan) {
  EXPECT_EQ(EncodeE4m3(std::numeric_limits<double>::quiet_NaN()) & 0x7F, 0x7F);
  EXPECT_EQ(EncodeE4m3(-std::numeric_limits<double>::quiet_NaN()) & 0x7F, 0x7F);
}

TEST(Float8Test, ZerosKeepTheirSign) {
  EXPECT_EQ(EncodeE4m3(0.0), 0x00);
  EXPECT_EQ(EncodeE4m3(-0.0), 0x80);
}

TEST(Float8Test, TheSmallestNumbersAreSubnormalOrZero) {
  const double smallest = std::exp2(-9);
  EXPECT_EQ(EncodeE4m3(smallest), 1);
  EXPECT_EQ(EncodeE4m3(smallest / 2), 0);
  EXPECT_EQ(EncodeE4m3(smallest * 0.51), 1);
  EXPECT_EQ(EncodeE4m3(smallest * 1.5), 2);
  EXPECT_EQ(EncodeE4m3(smallest * 7.6), 8);  // up to the smallest normal number
  EXPECT_EQ(EncodeE4m3(std::numeric_limits<double>::denorm_min()), 0);
  EXPECT_EQ(EncodeE4m3(-std::numeric_limits<double>::min()), 0x80);
}

}  // namespace
}  // namespace quantport
