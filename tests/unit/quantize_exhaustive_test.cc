// SIMD replaces divisions by multiplications. Whether that gives the bits of a division depends on the fractions of
// element and scale alone, of which there are 2^7 and 2^23.
//
// QUANTPORT_EXHAUSTIVE=1 tries all 2^30 pairs for each kernel and target, instead of one scale in a thousand.
#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <cstdlib>
#include <vector>

#include "quantize/codes.h"
#include "quantize/kernels.h"

namespace quantport::quantize {
namespace {

constexpr size_t kSize = 256;

// All fractions of BF16, from 64 to 255: with divisors from 1 to 2 the quotients pass all decisions of INT8 below its
// largest code, and those of wider steps with them.
std::vector<uint8_t> Fractions(float factor) {
  std::vector<uint8_t> bytes(2 * kSize);
  const Output output = {bytes.data(), ElementType::kBF16};
  for (size_t i = 0; i < kSize; ++i)
    output.Store(i, factor * static_cast<float>(128 + i % 128) * (i < 128 ? 1.0f : 0.5f));
  return bytes;
}

class QuantizeExhaustiveTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { Use(GetParam()); }
  void TearDown() override { Use(0); }
  static void Use(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  // Calls `quantize(kernels, scale, codes)` with the scales from 1 to 2.
  template <typename Quantize>
  static void ForScales(const Quantize& quantize) {
    const uint32_t step = std::getenv("QUANTPORT_EXHAUSTIVE") != nullptr ? 1 : 1009;
    std::vector<uint8_t> simd(kSize), reference(kSize);
    for (uint32_t fraction = 0; fraction < 1u << 23; fraction += step) {
      const float scale = std::bit_cast<float>(0x3F800000 | fraction);
      quantize(SimdKernels(), scale, simd.data());
      quantize(ReferenceKernels(), scale, reference.data());
      ASSERT_EQ(simd, reference) << scale;
    }
  }
};

TEST_P(QuantizeExhaustiveTest, Int8) {
  const auto bytes = Fractions(1.0f);
  ForScales([&](const Kernels& kernels, float scale, uint8_t* codes) {
    kernels.int8({bytes.data(), ElementType::kBF16, kSize}, &scale, kSize, codes);
  });
}

TEST_P(QuantizeExhaustiveTest, Fp8) {
  for (const bool round_quotient : {false, true}) {
    for (const float factor : {1.0f, 0x1p-14f}) {  // normal codes, and subnormal ones
      const auto bytes = Fractions(factor);
      ForScales([&](const Kernels& kernels, float scale, uint8_t* codes) {
        kernels.fp8({bytes.data(), ElementType::kBF16, kSize}, &scale, kSize, round_quotient, codes);
      });
    }
  }
}

TEST_P(QuantizeExhaustiveTest, Nvfp4) {
  const std::vector<uint8_t> ones(kSize / 16, kE4m3One);
  for (const float factor : {0x1p-5f, 0x1p-7f, 0x1p-9f}) {
    const auto bytes = Fractions(factor);
    ForScales([&](const Kernels& kernels, float scale, uint8_t* codes) {
      kernels.nvfp4_with_scales({bytes.data(), ElementType::kBF16, kSize}, scale, 16, ones.data(), codes);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, QuantizeExhaustiveTest, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& test_case) { return std::string(hwy::TargetName(test_case.param)); });

}  // namespace
}  // namespace quantport::quantize
