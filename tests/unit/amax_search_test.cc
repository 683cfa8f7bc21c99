// The search for an amax of FP8, INT8 and INT4; ModelOpt's own choices are in tests/cli/quantize_golden_test.py.
#include "quantize/amax_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "quantize/codes.h"

namespace quantport::quantize {
namespace {

struct Values {
  explicit Values(std::vector<float> numbers) : bytes(4 * numbers.size()) {
    for (size_t i = 0; i < numbers.size(); ++i) Output{bytes.data(), ElementType::kF32}.Store(i, numbers[i]);
  }
  Matrix AsMatrix(size_t rows) const { return {bytes, ElementType::kF32, rows, bytes.size() / 4 / rows}; }

  std::vector<uint8_t> bytes;
};

std::vector<float> Random(size_t count, float spread) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random) * std::exp(spread * normal(random));
  return values;
}

double Loss(const std::vector<float>& values, FormatId format, float amax) {
  double loss = 0;
  AddLosses(Values(values).AsMatrix(1).Flat(), format, {&amax, 1}, {&loss, 1});
  return loss;
}

TEST(AmaxSearchTest, FP8LossIsThatOfTheCodes) {
  // Past subnormals, ties and both ends: 448 / amax is one.
  std::vector<float> values;
  for (float value = 0x1p-12f; value < 1000; value *= 1.001f) values.push_back(value);
  for (int code = 0; code < 126; ++code)
    values.push_back((DecodeE4m3(static_cast<uint8_t>(code)) + DecodeE4m3(static_cast<uint8_t>(code + 1))) / -2);
  double expected = 0;
  for (const float value : values) {
    const float error = value - DecodeE4m3(EncodeE4m3(std::clamp(value, -448.0f, 448.0f)));
    expected += static_cast<double>(error * error);
  }
  EXPECT_EQ(Loss(values, FormatId::kFp8PerTensor, 448), expected);
}

TEST(AmaxSearchTest, IntegersAreRoundedToEvenAndCutOffAtBothEnds) {
  EXPECT_EQ(Loss({0.5f, 1.5f, -2.5f, 3.0f}, FormatId::kInt8, 127), 0.75);
  EXPECT_EQ(Loss({130.0f, -130.0f}, FormatId::kInt8, 127), 9 + 4);
  EXPECT_EQ(Loss({9.0f, -9.0f}, FormatId::kInt4, 7), 4 + 1);
}

TEST(AmaxSearchTest, AnAmaxOfNearlyNothingMakesZeros) {
  EXPECT_EQ(Loss({1.0f, -2.0f}, FormatId::kInt8, 0x1p-24f), 5);
  EXPECT_EQ(Loss({1.0f, -2.0f}, FormatId::kInt4, 0), 5);
}

TEST(AmaxSearchTest, TheFirstOfTheLeastIsTaken) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(LeastLoss(std::vector<double>{3, 1, 2, 1}), 1u);
  EXPECT_EQ(LeastLoss(std::vector<double>{3, kNan, 0, kNan}), 1u);
  EXPECT_EQ(LeastLoss(std::vector<double>{kNan, 1}), 0u);
}

TEST(AmaxSearchTest, EveryBlockGetsTheMultipleThatCostsItLeast) {
  constexpr size_t kRows = 6, kColumns = 40;
  const std::vector<float> numbers = Random(kRows * kColumns, 1.5f);
  const Values values(numbers);
  const std::vector<float> multipliers = {0.25f, 0.5f, 0.9f, 1.0f, 1.3f, 2.5f};
  for (const BlockShape block : {BlockShape{1, kColumns}, BlockShape{1, 16}, BlockShape{4, 16}, BlockShape{6, 40}}) {
    for (const FormatId format : {FormatId::kFp8PerTensor, FormatId::kInt8, FormatId::kInt4}) {
      const size_t across = (kColumns + block.columns - 1) / block.columns;
      std::vector<float> amax((kRows + block.rows - 1) / block.rows * across);
      ASSERT_TRUE(SearchAmax(values.AsMatrix(kRows), block, format, multipliers, ElementType::kF32, amax).ok());
      for (size_t b = 0; b < amax.size(); ++b) {
        std::vector<float> own;
        for (size_t row = b / across * block.rows; row < std::min(kRows, (b / across + 1) * block.rows); ++row) {
          for (size_t c = b % across * block.columns; c < std::min(kColumns, (b % across + 1) * block.columns); ++c)
            own.push_back(numbers[row * kColumns + c]);
        }
        float largest = 0;
        for (const float value : own) largest = std::max(largest, std::fabs(value));
        double least = HUGE_VAL;
        for (const float multiplier : multipliers) least = std::min(least, Loss(own, format, largest * multiplier));
        EXPECT_NEAR(Loss(own, format, amax[b]), least, least * 1e-12);
      }
    }
  }
}

TEST(AmaxSearchTest, CandidatesAreRoundedToTheTypeThatHoldsThem) {
  const Values values({1.0f, 0.3f});
  std::vector<float> amax(1);
  ASSERT_TRUE(
      SearchAmax(values.AsMatrix(1), {1, 2}, FormatId::kInt8, std::vector<float>{1.003f}, ElementType::kBF16, amax)
          .ok());
  EXPECT_EQ(amax[0], 1.0f);
}

TEST(AmaxSearchTest, WithoutCandidatesThereIsNothingToSearch) {
  const Values values({1.0f});
  std::vector<float> amax(1);
  EXPECT_FALSE(SearchAmax(values.AsMatrix(1), {1, 1}, FormatId::kInt8, {}, ElementType::kF32, amax).ok());
}

}  // namespace
}  // namespace quantport::quantize
