// What the formats ask for beyond ordinary weights: ties, zeros, limits, refusals.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "quantize/codes.h"
#include "quantize/fp8.h"
#include "quantize/integer.h"
#include "quantize/mx.h"
#include "quantize/nvfp4.h"
#include "quantize/nvfp4_search.h"

namespace quantport::quantize {
namespace {

using Bytes = std::vector<uint8_t>;

// Weights of BF16 from numbers that it can hold.
struct Weights {
  Weights(size_t rows, std::vector<float> values) : bytes(2 * values.size()), matrix{} {
    const Output output = {bytes.data(), ElementType::kBF16};
    for (size_t i = 0; i < values.size(); ++i) output.Store(i, values[i]);
    matrix = {bytes, ElementType::kBF16, rows, values.size() / rows};
  }
  Weights(const Weights&) = delete;

  Bytes bytes;
  Matrix matrix;
};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(CodesTest, Nvfp4TiesGoToEvenCodesAndMxfp4TiesToZero) {
  const std::vector<float> ties = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
  const std::vector<uint8_t> even = {0, 2, 2, 4, 4, 6, 6}, zero = {0, 1, 2, 3, 4, 5, 6};
  for (size_t i = 0; i < ties.size(); ++i) {
    EXPECT_EQ(EncodeE2m1ToEven(ties[i]), even[i]) << ties[i];
    EXPECT_EQ(EncodeE2m1ToEven(-ties[i]), even[i] | 8) << ties[i];
    EXPECT_EQ(EncodeE2m1ToZero(ties[i]), zero[i]) << ties[i];
    EXPECT_EQ(EncodeE2m1ToEven(std::nextafter(ties[i], 0.0f)), i) << ties[i];
    EXPECT_EQ(EncodeE2m1ToEven(std::nextafter(ties[i], 9.0f)), i + 1) << ties[i];
  }
}

TEST(CodesTest, ZerosAndNanOfE2m1) {
  EXPECT_EQ(EncodeE2m1ToEven(0.0f), 0);
  EXPECT_EQ(EncodeE2m1ToEven(-0.0f), 0);
  EXPECT_EQ(EncodeE2m1ToEven(-0.1f), 8);
  EXPECT_EQ(EncodeE2m1ToEven(kNan), 7);
  EXPECT_EQ(EncodeE2m1ToZero(0.0f), 8);
  EXPECT_EQ(EncodeE2m1ToZero(-0.0f), 8);
  EXPECT_EQ(EncodeE2m1ToZero(0.1f), 0);
  EXPECT_EQ(EncodeE2m1ToZero(kNan), 8);
}

TEST(CodesTest, E4m3IsNanAbove464AndRoundsSubnormalsToEven) {
  EXPECT_EQ(EncodeE4m3(464.0f), 0x7E);
  EXPECT_EQ(EncodeE4m3(std::nextafter(464.0f, 500.0f)), 0x7F);
  EXPECT_EQ(EncodeE4m3(-kInfinity), 0xFF);
  EXPECT_EQ(EncodeE4m3(-0.0f), 0x80);
  EXPECT_EQ(EncodeE4m3(0x1p-10f), 0x00);
  EXPECT_EQ(EncodeE4m3(std::nextafter(0x1p-10f, 1.0f)), 0x01);
  EXPECT_EQ(EncodeE4m3(0x1.8p-9f), 0x02);
  EXPECT_EQ(EncodeE4m3(0x1p-6f), 0x08);
}

TEST(CodesTest, All126ScalesOfE4m3ComeBack) {
  for (int code = 1; code <= 126; ++code) EXPECT_EQ(EncodeE4m3(DecodeE4m3(static_cast<uint8_t>(code))), code);
}

TEST(CodesTest, EveryHalfComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    if ((half & 0x7FFF) > 0x7C00) continue;
    EXPECT_EQ(ToF16(FromF16(half)), half);
  }
}

TEST(CodesTest, E8m0IsTheSmallestPowerThatHoldsTheLargest) {
  EXPECT_EQ(EncodeE8m0(6.0f, kE2m1Max), 127);
  EXPECT_EQ(EncodeE8m0(std::nextafter(6.0f, 7.0f), kE2m1Max), 128);
  EXPECT_EQ(EncodeE8m0(0.0f, kE2m1Max), 0);
  EXPECT_EQ(EncodeE8m0(448.0f, kE4m3Max), 127);
  EXPECT_EQ(EncodeE8m0(0x1p-140f, kE4m3Max), 0);
}

TEST(ScalesTest, CudaMultipliesByTheRoundedReciprocal) {
  int different = 0;
  for (int i = 128; i < 256; ++i) {
    const float amax = static_cast<float>(i);
    different += Fp8TensorScale(amax, {Arithmetic::kCpu}) != Fp8TensorScale(amax, {Arithmetic::kCuda});
  }
  EXPECT_EQ(different, 71);  // of BF16's 128 fractions, as measured on a GPU
}

TEST(ScalesTest, ZeroAndNanAreGuardedAndTheSmallestIsNormal) {
  const std::vector<float> amax = {0.0f, kNan, 448.0f, 0x1p-20f};
  std::vector<float> scales(4);
  GuardedScales(amax, 448.0f, ElementType::kF16, Arithmetic::kCpu, scales);
  EXPECT_EQ(scales, (std::vector<float>{1.0f, 1.0f, 1.0f, 0x1p-14f / 448.0f}));
  GuardedScales(amax, 448.0f, ElementType::kBF16, Arithmetic::kCpu, scales);
  EXPECT_EQ(scales[3], 0x1p-20f / 448.0f);
}

TEST(ScalesTest, AmaxIsNanWhereOneIsInsideAndItsIndexIsFound) {
  const Weights weights(2, {1, -3, 2, kInfinity, 0, kNan, -7, 5});
  std::vector<float> rows(2), blocks(2);
  ASSERT_TRUE(BlockAmax(weights.matrix, {1, 4}, rows));
  EXPECT_EQ(rows[0], kInfinity);
  EXPECT_TRUE(std::isnan(rows[1]));
  ASSERT_TRUE(BlockAmax(weights.matrix, {2, 3}, blocks));
  EXPECT_TRUE(std::isnan(blocks[0]));
  EXPECT_EQ(blocks[1], kInfinity);
  EXPECT_EQ(FindNonfinite(weights.matrix), 3u);
}

TEST(Fp8Test, AZeroTensorGetsZeroCodesOrWhatModelOptGivesIt) {
  const Weights zeros(1, std::vector<float>(40, 0.0f));
  Bytes codes(40);
  const float scale = Fp8TensorScale(0.0f, {});
  EXPECT_EQ(scale, 1.0f);
  ASSERT_TRUE(QuantizeFp8Tensor(zeros.matrix, scale, Arithmetic::kCpu, codes));
  EXPECT_EQ(codes, Bytes(40, 0));
  const float exact = Fp8TensorScale(0.0f, {.bit_exact_zeros = true});
  EXPECT_EQ(exact, 0.0f);
  ASSERT_TRUE(QuantizeFp8Tensor(zeros.matrix, exact, Arithmetic::kCpu, codes));
  EXPECT_EQ(codes, Bytes(40, 0xFF));
  ASSERT_TRUE(QuantizeFp8Tensor(zeros.matrix, exact, Arithmetic::kCuda, codes));
  EXPECT_EQ(codes, Bytes(40, 0x7F));
}

TEST(Fp8Test, CudaRoundsTheDivisorToTheWeightsType) {
  std::vector<float> values;
  for (int i = 0; i < 256; ++i) values.push_back(std::ldexp(static_cast<float>(128 + i % 128), i / 128 - 8));
  const Weights weights(1, values);
  const float scale = 0x1.80FFp-7f;  // nearly half a step of BF16 above 0x1.80p-7
  Bytes cpu(256), cuda(256), rounded(256);
  ASSERT_TRUE(QuantizeFp8Tensor(weights.matrix, scale, Arithmetic::kCpu, cpu));
  ASSERT_TRUE(QuantizeFp8Tensor(weights.matrix, scale, Arithmetic::kCuda, cuda));
  ASSERT_TRUE(QuantizeFp8Tensor(weights.matrix, FromBf16(ToBf16(scale)), Arithmetic::kCpu, rounded));
  EXPECT_NE(cpu, cuda);
  EXPECT_EQ(cuda, rounded);
}

TEST(Fp8Test, HubBlocksAreMultipliedByTheirScaleAsItIs) {
  const Bytes codes = {0x38, 0x40, 0xB8, 0x08};
  const std::vector<float> scales = {1.00390637f, 3.0f};
  Bytes output(16);
  ASSERT_TRUE(DequantizeFp8(codes, 2, 2, {2, 1}, scales, ScaleRounding::kKept, output, ElementType::kF32));
  const Row row = {output.data(), ElementType::kF32, 4};
  EXPECT_EQ(LoadElement(row, 0), 1.00390637f);
  EXPECT_EQ(LoadElement(row, 1), 6.0f);
  EXPECT_EQ(LoadElement(row, 2), -1.00390637f);
  EXPECT_EQ(LoadElement(row, 3), 3.0f * 0x1p-6f);
}

TEST(Nvfp4Test, ZeroBlocksAndSmallScales) {
  std::vector<float> values(64, 0.0f);
  values[0] = 2688.0f;       // scale 448
  values[32] = 6 * 0x1p-9f;  // scale 2^-9
  values[33] = 6 * 0x1p-12f;
  values[48] = 6 * 0x1p-12f;  // below: clamped to 2^-9
  const Weights weights(1, values);
  Bytes scales(4), codes(32);
  ASSERT_TRUE(QuantizeNvfp4(weights.matrix, 1.0f, 16, {}, scales, codes));
  EXPECT_EQ(scales, (Bytes{0x7E, 0x38, 0x01, 0x01}));
  EXPECT_EQ(codes[0], 7);
  EXPECT_EQ(codes[16], 0x27);  // 6 and 0.75, a tie that goes to 1
  EXPECT_EQ(codes[24], 2);
}

TEST(Nvfp4Test, AQuotientAboveSixSaturates) {
  std::vector<float> values(32, 0.0f);
  values[0] = 2688.0f;
  values[16] = -8.9375f * 0x1p-9f;  // the scale 1.49 * 2^-9 rounds to 2^-9
  const Weights weights(1, values);
  Bytes scales(2), codes(16);
  ASSERT_TRUE(QuantizeNvfp4(weights.matrix, 1.0f, 16, {}, scales, codes));
  EXPECT_EQ(scales[1], 0x01);
  EXPECT_EQ(codes[8], 0x0F);
}

TEST(Nvfp4Test, AZeroTensorGetsZeroCodesOrWhatModelOptGivesIt) {
  const Weights zeros(1, std::vector<float>(32, 0.0f));
  Bytes scales(2), codes(16);
  const float scale = Nvfp4GlobalScale(0.0f, 448.0f, {});
  ASSERT_TRUE(QuantizeNvfp4(zeros.matrix, scale, 16, {}, scales, codes));
  EXPECT_EQ(scales, Bytes(2, 0x38));
  EXPECT_EQ(codes, Bytes(16, 0));
  const Numerics cuda = {.arithmetic = Arithmetic::kCuda, .bit_exact_zeros = true};
  ASSERT_TRUE(QuantizeNvfp4(zeros.matrix, Nvfp4GlobalScale(0.0f, 448.0f, cuda), 16, cuda, scales, codes));
  EXPECT_EQ(scales, Bytes(2, 0x7F));
  EXPECT_EQ(codes, Bytes(16, 0x77));
}

TEST(Nvfp4Test, ShapesThatModelOptRefusesAreRefused) {
  const Weights weights(1, std::vector<float>(24, 1.0f));
  Bytes scales(2), codes(12);
  EXPECT_FALSE(QuantizeNvfp4(weights.matrix, 1.0f, 16, {}, scales, codes));
  EXPECT_FALSE(QuantizeMx(FormatId::kMxfp8, weights.matrix, scales, codes));
  const std::vector<float> one = {1.0f};
  EXPECT_FALSE(QuantizeInt4(weights.matrix, 24, one, codes));
}

TEST(Nvfp4SearchTest, FourOverSixTakesTheFactorWhoseErrorIsLess) {
  // 4, 3 and 2 of 4 are codes if 4 is the largest code, and not if 6 is; 6, 4 and 3 of 6 the other way round.
  std::vector<float> values(32, 0.0f);
  values[0] = 4, values[1] = 3, values[2] = 1;
  values[16] = 6, values[17] = 4, values[18] = 3;
  const Weights weights(1, values);
  std::vector<float> amax(2);
  ASSERT_TRUE(SearchNvfp4Amax(weights.matrix, 16, 6.0f, 256.0f, std::vector<float>{1.0f, 1.5f}, amax));
  EXPECT_EQ(amax, (std::vector<float>{6.0f, 6.0f}));
}

TEST(Nvfp4SearchTest, TheSweepIsNeverWorseThanTheLargestMagnitude) {
  std::vector<float> values(256);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * 37) % 101) * 0.125f - 6.0f;
  const Weights weights(1, values);
  std::vector<float> amax(16), swept(16);
  ASSERT_TRUE(BlockAmax(weights.matrix, {1, 16}, amax));
  ASSERT_TRUE(SweepNvfp4Amax(weights.matrix, 16, 6.5f, swept));
  const auto error = [&](const std::vector<float>& block_amax) {
    Bytes scales(16), codes(128);
    StaticNvfp4Scales(block_amax, 6.5f, 448.0f, Arithmetic::kCpu, scales);
    const float global_scale = Nvfp4GlobalScale(6.5f, 448.0f, {});
    EXPECT_TRUE(QuantizeNvfp4WithScales(weights.matrix, global_scale, 16, scales, codes));
    ErrorSums sums;
    EXPECT_TRUE(MeasureNvfp4(weights.matrix, codes, 16, scales, global_scale, &sums));
    return sums.squared_error;
  };
  EXPECT_LT(error(swept), error(amax));
}

TEST(Nvfp4SearchTest, MultipliersAreTorchsLinspace) {
  const auto multipliers = SearchMultipliers(0.25, 4.0, 0.1);
  ASSERT_EQ(multipliers.size(), 39u);
  EXPECT_EQ(multipliers.front(), 0.25f);
  EXPECT_EQ(multipliers.back(), 4.0f);
}

TEST(Int4Test, RowsArePackedInPairsTheEvenOneLow) {
  const Weights weights(2, {7, -8, 0, 3, -1, 1, -7, 2});
  const std::vector<float> scales = {1.0f, 1.0f};
  Bytes codes(4);
  ASSERT_TRUE(QuantizeInt4(weights.matrix, 4, scales, codes));
  EXPECT_EQ(codes, (Bytes{0xF7, 0x18, 0x90, 0x23}));
}

TEST(MeasureTest, CountsErrorsAndWhatWasClipped) {
  const Weights weights(2, {1.0f, 2.5f, 100.0f, -200.0f});
  const std::vector<float> scales = {1.0f, 1.0f};
  Bytes codes(4);
  ASSERT_TRUE(QuantizeInt8(weights.matrix, 2, scales, codes));
  ErrorSums sums;
  ASSERT_TRUE(MeasureInt8(weights.matrix, codes, 2, scales, &sums));
  EXPECT_EQ(sums.elements, 4u);
  EXPECT_EQ(sums.clipped, 1u);
  EXPECT_EQ(sums.max_error, 72.0f);
  EXPECT_DOUBLE_EQ(sums.squared_error, 0.25 + 72.0 * 72.0);
}

TEST(RangesTest, PartsOfATensorGiveTheBytesOfTheWhole) {
  std::vector<float> values(256 * 96);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i) * 0.7f);
  const Weights weights(256, values);
  std::vector<float> scales(2);
  ASSERT_TRUE(BlockAmax(weights.matrix, {128, 128}, scales));
  for (float& scale : scales) scale /= 448.0f;
  Bytes whole(values.size()), parts(values.size());
  ASSERT_TRUE(QuantizeFp8(weights.matrix, {128, 128}, scales, whole));
  for (size_t half = 0; half < 2; ++half) {
    const Matrix part = {std::span(weights.bytes).subspan(half * values.size(), values.size()), ElementType::kBF16, 128,
                         96};
    ASSERT_TRUE(QuantizeFp8(part, {128, 128}, std::span(scales).subspan(half, 1),
                            std::span(parts).subspan(half * values.size() / 2, values.size() / 2)));
  }
  EXPECT_EQ(parts, whole);
}

}  // namespace
}  // namespace quantport::quantize
