// SIMD against the reference, on random bits of every kind, for every target that this processor has.
//
// QUANTPORT_DIFFERENTIAL_ELEMENTS=100000000 asks for that many elements a format and type instead of a million.
#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "quantize/kernels.h"
#include "quantize/scales.h"

namespace quantport::quantize {
namespace {

using Bytes = std::vector<uint8_t>;

size_t ElementsToTry() {
  const char* text = std::getenv("QUANTPORT_DIFFERENTIAL_ELEMENTS");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 1'000'000;
}

// How a row's elements are drawn.
enum class Kind {
  kAnyBits,  // NaN, infinity and subnormals among them
  kFinite,   // all exponents
  kNormal,   // as weights are
  kSteps,    // small multiples of a power of two: ties and zeros
  kSubnormal,
};
constexpr Kind kKinds[] = {Kind::kAnyBits, Kind::kFinite, Kind::kNormal, Kind::kSteps, Kind::kSubnormal};

class Source {
 public:
  explicit Source(uint64_t seed) : random_(seed) {}

  uint64_t Below(uint64_t end) { return random_() % end; }
  float Element(Kind kind, int exponent) {
    const uint32_t bits = static_cast<uint32_t>(random_());
    switch (kind) {
      case Kind::kAnyBits:
        return std::bit_cast<float>(bits);
      case Kind::kFinite:
        return std::bit_cast<float>((bits & 0x807FFFFF) | static_cast<uint32_t>(Below(255)) << 23);
      case Kind::kNormal:
        return std::ldexp(normal_(random_), exponent);
      case Kind::kSteps:
        return std::ldexp(static_cast<float>(static_cast<int>(bits % 57) - 28), exponent);
      case Kind::kSubnormal:
        return std::bit_cast<float>(bits & 0x80FFFFFF);
    }
    return 0;
  }
  // Bytes of a row whose size leaves a rest more often than not; NaN are those that the bits are.
  Bytes Row(ElementType type, size_t size) {
    const Kind kind = kKinds[Below(std::size(kKinds))];
    const int exponent =
        type == ElementType::kF16 ? static_cast<int>(Below(24)) - 16 : static_cast<int>(Below(60)) - 40;
    Bytes bytes(size * ElementBytes(type));
    const Output output = {bytes.data(), type};
    for (size_t i = 0; i < size; ++i) {
      if (type == ElementType::kF32 || kind == Kind::kNormal || kind == Kind::kSteps) {
        output.Store(i, Element(kind, exponent));
      } else {
        uint16_t bits = static_cast<uint16_t>(random_());
        if (kind == Kind::kFinite && (bits & 0x7C00) == 0x7C00) bits ^= 0x4000;
        if (kind == Kind::kSubnormal) bits &= type == ElementType::kBF16 ? 0x81FF : 0x87FF;
        std::memcpy(bytes.data() + 2 * i, &bits, 2);
      }
    }
    return bytes;
  }
  // As amax would give, or of a few bits (ties), or anything positive.
  float Scale(float amax, float largest) {
    switch (Below(4)) {
      case 0:
        return std::ldexp(static_cast<float>(1 + Below(256)), static_cast<int>(Below(30)) - 24);
      case 1:
        return std::bit_cast<float>(static_cast<uint32_t>(Below(0x7F800000)));
      default:
        return amax > 0 && std::isfinite(amax) ? amax / largest : 1.0f;
    }
  }
  Bytes Codes(size_t size) {
    Bytes codes(size);
    for (uint8_t& code : codes) code = static_cast<uint8_t>(random_());
    return codes;
  }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<float> normal_;
};

class QuantizeDifferentialTest : public testing::TestWithParam<std::tuple<int64_t, ElementType>> {
 protected:
  void SetUp() override { Use(std::get<0>(GetParam())); }
  void TearDown() override { Use(0); }
  static void Use(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  ElementType type() const { return std::get<1>(GetParam()); }

  // Calls `try_row(row, amax)` until enough elements have been tried; rows have multiples of `multiple` elements.
  template <typename TryRow>
  void ForRows(size_t multiple, const TryRow& try_row) {
    for (size_t tried = 0; tried < ElementsToTry() && !HasFailure();) {
      const size_t most = source_.Below(8) == 0 ? 20000 : 1200;
      const size_t size = (1 + source_.Below(most)) / multiple * multiple;
      const Bytes bytes = source_.Row(type(), size);
      const Row row = {bytes.data(), type(), size};
      float amax = 0;
      if (size > 0) reference_.group_amax(row, size, &amax);
      try_row(row, amax);
      tried += size;
    }
  }
  void ExpectSame(const Bytes& simd, const Bytes& reference, const char* what) {
    for (size_t i = 0; i < simd.size(); ++i) {
      if (simd[i] != reference[i]) {
        ADD_FAILURE() << what << " " << i << " of " << simd.size() << std::hex << ": 0x" << int(simd[i]) << " for 0x"
                      << int(reference[i]);
        return;
      }
    }
  }
  std::vector<float> Scales(size_t count, float amax, float largest) {
    std::vector<float> scales(count);
    for (float& scale : scales) scale = source_.Scale(amax, largest);
    return scales;
  }
  static size_t Groups(size_t size, size_t group) { return (size + group - 1) / group; }

  Source source_{17};
  const Kernels& reference_ = ReferenceKernels();
};

TEST_P(QuantizeDifferentialTest, Amax) {
  ForRows(1, [&](Row row, float) {
    for (const size_t group : {size_t{1} + source_.Below(300), row.size}) {
      if (group == 0) continue;
      std::vector<float> simd(Groups(row.size, group)), reference(simd.size());
      SimdKernels().group_amax(row, group, simd.data());
      reference_.group_amax(row, group, reference.data());
      EXPECT_EQ(std::memcmp(simd.data(), reference.data(), simd.size() * sizeof(float)), 0);
    }
    EXPECT_EQ(SimdKernels().find_nonfinite(row), reference_.find_nonfinite(row));
  });
}

TEST_P(QuantizeDifferentialTest, Fp8) {
  for (const bool round_quotient : {false, true}) {
    ForRows(1, [&](Row row, float amax) {
      const size_t group = source_.Below(2) == 0 ? 128 : 1 + source_.Below(row.size + 1);
      const auto scales = Scales(Groups(row.size, group), amax, 448.0f);
      Bytes simd(row.size), reference(row.size);
      SimdKernels().fp8(row, scales.data(), group, round_quotient, simd.data());
      reference_.fp8(row, scales.data(), group, round_quotient, reference.data());
      ExpectSame(simd, reference, "code");
    });
  }
}

TEST_P(QuantizeDifferentialTest, Mxfp8) {
  ForRows(32, [&](Row row, float) {
    Bytes simd(row.size), reference(row.size), simd_scales(row.size / 32), reference_scales(row.size / 32);
    SimdKernels().mxfp8(row, simd_scales.data(), simd.data());
    reference_.mxfp8(row, reference_scales.data(), reference.data());
    ExpectSame(simd_scales, reference_scales, "scale");
    ExpectSame(simd, reference, "code");
  });
}

TEST_P(QuantizeDifferentialTest, Mxfp4) {
  ForRows(32, [&](Row row, float) {
    Bytes simd(row.size / 2), reference(row.size / 2), simd_scales(row.size / 32), reference_scales(row.size / 32);
    SimdKernels().mxfp4(row, simd_scales.data(), simd.data());
    reference_.mxfp4(row, reference_scales.data(), reference.data());
    ExpectSame(simd_scales, reference_scales, "scale");
    ExpectSame(simd, reference, "code");
  });
}

TEST_P(QuantizeDifferentialTest, Nvfp4) {
  ForRows(32, [&](Row row, float amax) {
    const size_t block = source_.Below(4) == 0 ? 32 : 16;
    const float global_scale = source_.Scale(amax, 2688.0f);
    Bytes simd(row.size / 2), reference(row.size / 2), simd_scales(row.size / block),
        reference_scales(row.size / block);
    SimdKernels().nvfp4(row, global_scale, block, simd_scales.data(), simd.data());
    reference_.nvfp4(row, global_scale, block, reference_scales.data(), reference.data());
    ExpectSame(simd_scales, reference_scales, "scale");
    ExpectSame(simd, reference, "code");
  });
}

TEST_P(QuantizeDifferentialTest, Nvfp4WithAnyScales) {
  ForRows(32, [&](Row row, float amax) {
    const size_t block = source_.Below(4) == 0 ? 32 : 16;
    const float global_scale = source_.Scale(amax, 2688.0f);
    Bytes scales = source_.Codes(row.size / block);
    if (source_.Below(2) == 0) {
      for (uint8_t& scale : scales) scale = static_cast<uint8_t>(0x60 + scale % 0x1F);
    }
    Bytes simd(row.size / 2), reference(row.size / 2);
    SimdKernels().nvfp4_with_scales(row, global_scale, block, scales.data(), simd.data());
    reference_.nvfp4_with_scales(row, global_scale, block, scales.data(), reference.data());
    ExpectSame(simd, reference, "code");
  });
}

TEST_P(QuantizeDifferentialTest, Int8) {
  ForRows(1, [&](Row row, float amax) {
    const size_t group = 1 + source_.Below(row.size + 1);
    const auto scales = Scales(Groups(row.size, group), amax, 127.0f);
    Bytes simd(row.size), reference(row.size);
    SimdKernels().int8(row, scales.data(), group, simd.data());
    reference_.int8(row, scales.data(), group, reference.data());
    ExpectSame(simd, reference, "code");
  });
}

TEST_P(QuantizeDifferentialTest, Int4) {
  ForRows(2, [&](Row both, float amax) {
    const Row even = both.Slice(0, both.size / 2), odd = both.Slice(both.size / 2, both.size / 2);
    const size_t group = source_.Below(2) == 0 ? 128 : 1 + source_.Below(even.size + 1);
    const auto low = Scales(Groups(even.size, group), amax, 7.0f), high = Scales(low.size(), amax, 7.0f);
    Bytes simd(even.size), reference(even.size);
    SimdKernels().int4(even, odd, low.data(), high.data(), group, simd.data());
    reference_.int4(even, odd, low.data(), high.data(), group, reference.data());
    ExpectSame(simd, reference, "code");
  });
}

TEST_P(QuantizeDifferentialTest, Dequantizing) {
  ForRows(32, [&](Row row, float) {
    const size_t size = row.size;
    const Bytes codes = source_.Codes(size);
    Bytes scales = source_.Codes(size / 16 + 1);
    for (uint8_t& scale : scales) scale = scale == 255 ? 254 : scale;  // of two NaN, the product may have either's sign
    const size_t group = source_.Below(2) == 0 ? 128 : 1 + source_.Below(size + 1);
    const auto floats = Scales(Groups(size, group), 1.0f, 448.0f), others = Scales(floats.size(), 1.0f, 448.0f);
    const float global_scale = source_.Scale(1.0f, 2688.0f);
    const auto rounding = source_.Below(2) == 0 ? ScaleRounding::kKept : ScaleRounding::kToOutput;
    const auto expect_same = [&](const char* what, const auto& run) {
      Bytes simd(2 * size * ElementBytes(type())), reference(simd.size());
      run(SimdKernels(), Output{simd.data(), type()});
      run(reference_, Output{reference.data(), type()});
      ExpectSame(simd, reference, what);
    };
    expect_same("fp8", [&](const Kernels& kernels, Output output) {
      kernels.from_fp8(codes.data(), size, floats.data(), group, rounding, output);
    });
    expect_same("mxfp8", [&](const Kernels& kernels, Output output) {
      kernels.from_mxfp8(codes.data(), size, scales.data(), output);
    });
    expect_same("mxfp4", [&](const Kernels& kernels, Output output) {
      kernels.from_mxfp4(codes.data(), size, scales.data(), output);
    });
    expect_same("nvfp4", [&](const Kernels& kernels, Output output) {
      kernels.from_nvfp4(codes.data(), size, global_scale, 16, scales.data(), output);
    });
    expect_same("int8", [&](const Kernels& kernels, Output output) {
      kernels.from_int8(codes.data(), size, floats.data(), group, rounding, output);
    });
    expect_same("int4", [&](const Kernels& kernels, Output output) {
      kernels.from_int4(codes.data(), size, floats.data(), others.data(), group, rounding, output, output.At(size));
    });
  });
}

void ExpectSameSums(const ErrorSums& simd, const ErrorSums& reference) {
  EXPECT_EQ(simd.squared_error, reference.squared_error);
  EXPECT_EQ(simd.squares, reference.squares);
  EXPECT_EQ(simd.max_error, reference.max_error);
  EXPECT_EQ(simd.clipped, reference.clipped);
  EXPECT_EQ(simd.elements, reference.elements);
}

// Any codes at all, most of them far from the row, and scales near its largest magnitude.
TEST_P(QuantizeDifferentialTest, Errors) {
  ForRows(32, [&](Row row, float amax) {
    const size_t size = row.size;
    const Bytes codes = source_.Codes(size), block_scales = source_.Codes(size / 16 + 1);
    const size_t group = source_.Below(2) == 0 ? 128 : 1 + source_.Below(size + 1);
    const auto scales = Scales(Groups(size, group), amax, 100.0f), others = Scales(scales.size(), amax, 100.0f);
    const float global_scale = source_.Scale(amax, 2688.0f);
    const size_t block = source_.Below(4) == 0 ? 32 : 16;
    const auto expect_same = [&](const auto& run) { ExpectSameSums(run(SimdKernels()), run(reference_)); };
    expect_same([&](const Kernels& kernels) { return kernels.fp8_error(row, codes.data(), scales.data(), group); });
    expect_same([&](const Kernels& kernels) { return kernels.mxfp8_error(row, codes.data(), block_scales.data()); });
    expect_same([&](const Kernels& kernels) { return kernels.mxfp4_error(row, codes.data(), block_scales.data()); });
    expect_same([&](const Kernels& kernels) {
      return kernels.nvfp4_error(row, codes.data(), global_scale, block, block_scales.data());
    });
    expect_same([&](const Kernels& kernels) { return kernels.int8_error(row, codes.data(), scales.data(), group); });
    const Row even = row.Slice(0, size / 2), odd = row.Slice(size / 2, size / 2);
    expect_same([&](const Kernels& kernels) {
      return kernels.int4_error(even, odd, codes.data(), scales.data(), others.data(), group);
    });
  });
}

std::string CaseName(const testing::TestParamInfo<std::tuple<int64_t, ElementType>>& info) {
  const ElementType type = std::get<1>(info.param);
  const std::string name = type == ElementType::kBF16 ? "BF16" : type == ElementType::kF16 ? "F16" : "F32";
  return std::string(hwy::TargetName(std::get<0>(info.param))) + "_" + name;
}

INSTANTIATE_TEST_SUITE_P(Targets, QuantizeDifferentialTest,
                         testing::Combine(testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                                          testing::Values(ElementType::kBF16, ElementType::kF16, ElementType::kF32)),
                         CaseName);

}  // namespace
}  // namespace quantport::quantize
