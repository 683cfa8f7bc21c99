#include "exec/merged_scales.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "base/float8.h"
#include "exec/copy.h"
#include "io/local_storage.h"
#include "support/checkpoint_builder.h"
#include "unit/dense.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using test::Store;
using test::TempDir;
using test::TestTensor;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Shape = std::vector<uint64_t>;

std::string F32(const std::vector<float>& values) {
  std::string bytes(values.size() * 4, '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::string Bf16(float value) { return F32({value}).substr(2); }

// The code nearest to a value by looking at all of them; of two as near, the even one.
uint8_t NearestE4m3(double value) {
  int best = 0;
  for (int code = 1; code <= 0x7E; ++code) {
    const double distance = std::fabs(DecodeE4m3(static_cast<uint8_t>(code)) - std::fabs(value));
    const double least = std::fabs(DecodeE4m3(static_cast<uint8_t>(best)) - std::fabs(value));
    if (distance < least || (distance == least && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

std::string Rescaled(const std::string& codes, double factor) {
  std::string out;
  for (const char c : codes) {
    const auto code = static_cast<uint8_t>(c);
    out += (code & 0x7F) == 0x7F ? c : static_cast<char>(NearestE4m3(DecodeE4m3(code) * factor));
  }
  return out;
}

// Every code once.
std::string AllCodes() {
  std::string codes;
  for (int code = 0; code < 256; ++code) codes += static_cast<char>(code);
  return codes;
}

// One stored tensor of a weight, with its bytes.
struct Part {
  std::string leaf;
  DType dtype;
  Shape shape;
  std::vector<std::optional<Axis>> axes;
  std::string bytes;
};

// Weights put side by side with scales merged, through a plan and real files.
class Merge {
 public:
  void Add(const std::string& name, const Shape& shape, const std::vector<Part>& parts) {
    LogicalWeight weight{FormatId::kFp8PerTensor, shape, {}};
    for (const Part& part : parts) {
      const uint32_t tensor = store_.Add(name + "." + part.leaf, part.dtype, part.shape);
      EXPECT_EQ(store_.bytes[tensor].size(), part.bytes.size()) << name << "." << part.leaf;
      store_.bytes[tensor] = part.bytes;
      weight.parts.push_back({part.leaf, store_.Whole(tensor), part.axes, {}, {}});
    }
    weights_.push_back(std::move(weight));
  }

  // A linear [4, 64] of all codes with one scale.
  void AddFp8(const std::string& name, const std::string& scale, DType dtype = DType::kF32) {
    Add(name, {4, 64},
        {{"weight", DType::kF8E4M3, {4, 64}, {Axis{0, 1}, Axis{1, 1}}, AllCodes()},
         {"weight_scale", dtype, {}, {std::nullopt, std::nullopt}, scale}});
  }

  // A linear [4, 1024] in NVFP4, every code among its block scales.
  void AddNvfp4(const std::string& name, const std::string& leaf, float scale) {
    Add(name, {4, 1024},
        {{"weight", DType::kU8, {4, 512}, {Axis{0, 1}, Axis{1, 2}}, test::FillBytes(name, 2048)},
         {"weight_scale", DType::kF8E4M3, {4, 64}, {Axis{0, 1}, Axis{1, 16}}, AllCodes()},
         {leaf, DType::kF32, {1}, {std::nullopt, std::nullopt}, F32({scale})}});
  }

  Result<ExecReport> Run(size_t dim = 0) {
    const TempDir dir;
    SharedScales shared;
    shared.merge_max = true;
    auto joined = ConcatenateWeights(weights_, dim, &shared);
    if (!joined) return joined.errors();
    Conversion conversion;
    for (const StoredPart& part : joined->parts)
      conversion.tensors.push_back({part.leaf, part.array, joined->format, 0});
    conversion.shared = shared;
    std::string data;
    for (const std::string& bytes : store_.bytes) data += bytes;
    test::WriteFile(dir / "model.safetensors", data);
    auto plan = MakePlan(conversion, store_.table, dir.path(), {});
    if (!plan) return plan.errors();
    std::filesystem::create_directory(dir / "out");
    auto report = WriteFiles(*plan, LocalStorage(), OpenOutputFolder(dir / "out").get(), "", {});
    if (report) written = test::ReadCheckpoint(dir / "out");
    return report;
  }

  std::map<std::string, TestTensor> written;

 private:
  Store store_;
  std::vector<LogicalWeight> weights_;
};

ExecReport Must(Result<ExecReport> report) {
  if (report) return std::move(*report);
  ADD_FAILURE() << report.errors()[0].ToString();
  return {};
}

// What re-expressing `codes` by `factor` costs, with errors in units of the common scale.
struct Cost {
  uint64_t elements = 0;
  uint64_t changed = 0;
  double squares = 0;
  double errors = 0;
  double largest = 0;

  void Add(const std::string& codes, const std::string& rescaled, double factor) {
    for (size_t i = 0; i < codes.size(); ++i) {
      const double exact = DecodeE4m3(static_cast<uint8_t>(codes[i])) * factor;
      ++elements;
      if (std::isnan(exact)) continue;
      const double error = std::fabs(DecodeE4m3(static_cast<uint8_t>(rescaled[i])) - exact);
      squares += exact * exact;
      errors += error * error;
      if (error == 0) continue;
      ++changed;
      largest = std::max(largest, error / std::fabs(exact));
    }
  }

  void Expect(const RescaleError& reported) const {
    EXPECT_EQ(reported.elements, elements);
    EXPECT_EQ(reported.changed, changed);
    EXPECT_NEAR(reported.rms_relative, std::sqrt(errors / squares), 1e-12);
    EXPECT_NEAR(reported.largest_relative, largest, 1e-12);
  }
};

// ---- values -------------------------------------------------------------------------------------------------------

TEST(MergedScalesTest, Fp8ValuesAreRoundedUnderTheLargestScale) {
  Merge merge;
  merge.AddFp8("q", F32({0.5f}));
  merge.AddFp8("k", F32({0.3f}));
  const ExecReport report = Must(merge.Run());
  const double factor = static_cast<double>(0.3f) / 0.5;
  EXPECT_EQ(merge.written["weight"].bytes, AllCodes() + Rescaled(AllCodes(), factor));
  EXPECT_EQ(merge.written["weight_scale"].bytes, F32({0.5f}));
  EXPECT_THAT(merge.written["weight_scale"].shape, IsEmpty());
  ASSERT_EQ(report.rescaled.size(), 1u);
  EXPECT_EQ(report.rescaled[0].tensor, "weight");
  EXPECT_EQ(report.rescaled[0].scalar, "weight_scale");
  Cost cost;
  cost.Add(AllCodes(), AllCodes(), 1);
  cost.Add(AllCodes(), Rescaled(AllCodes(), factor), factor);
  EXPECT_GT(cost.changed, 100u);
  cost.Expect(report.rescaled[0]);
}

TEST(MergedScalesTest, APowerOfTwoCostsOnlySubnormals) {
  Merge merge;
  merge.AddFp8("q", F32({1.0f}));
  merge.AddFp8("k", F32({0.5f}));
  const ExecReport report = Must(merge.Run());
  Cost cost;
  cost.Add(AllCodes(), AllCodes(), 1);
  cost.Add(AllCodes(), Rescaled(AllCodes(), 0.5), 0.5);
  EXPECT_GT(cost.changed, 0u);
  EXPECT_LT(cost.changed, 32u);
  cost.Expect(report.rescaled.at(0));
}

TEST(MergedScalesTest, EqualScalesChangeNothing) {
  Merge merge;
  for (const char* name : {"q", "k", "v"}) merge.AddFp8(name, F32({0.3f}));
  const ExecReport report = Must(merge.Run());
  EXPECT_EQ(merge.written["weight"].bytes, AllCodes() + AllCodes() + AllCodes());
  EXPECT_EQ(merge.written["weight_scale"].bytes, F32({0.3f}));
  ASSERT_EQ(report.rescaled.size(), 1u);
  EXPECT_EQ(report.rescaled[0].elements, 768u);
  EXPECT_EQ(report.rescaled[0].changed, 0u);
  EXPECT_EQ(report.rescaled[0].rms_relative, 0);
  EXPECT_EQ(report.rescaled[0].largest_relative, 0);
}

TEST(MergedScalesTest, ColumnsSideBySideAreRescaledToo) {
  Merge merge;
  merge.AddFp8("a", F32({0.25f}));
  merge.AddFp8("b", F32({0.75f}));
  Must(merge.Run(1));
  std::string want;
  for (size_t row = 0; row < 4; ++row) {
    const std::string codes = AllCodes().substr(row * 64, 64);
    want += Rescaled(codes, 0.25 / 0.75) + codes;
  }
  EXPECT_EQ(merge.written["weight"].bytes, want);
}

TEST(MergedScalesTest, I8ValuesAreRoundedToEvenNeighbours) {
  Merge merge;
  for (const float scale : {0.5f, 1.0f}) {
    merge.Add(fmt::format("w{}", scale), {4, 64},
              {{"weight", DType::kI8, {4, 64}, {Axis{0, 1}, Axis{1, 1}}, AllCodes()},
               {"weight_scale", DType::kF32, {}, {std::nullopt, std::nullopt}, F32({scale})}});
  }
  const ExecReport report = Must(merge.Run());
  std::string want;
  for (int code = 0; code < 256; ++code) {
    const int value = static_cast<int8_t>(code);
    int half = value / 2;
    if (value % 2 != 0 && half % 2 != 0) half += value > 0 ? 1 : -1;  // k + 1/2 goes to the even one
    want += static_cast<char>(static_cast<int8_t>(half));
  }
  EXPECT_EQ(merge.written["weight"].bytes, want + AllCodes());
  EXPECT_EQ(report.rescaled.at(0).changed, 128u);
  EXPECT_DOUBLE_EQ(report.rescaled.at(0).largest_relative, 1.0);  // 1 became 0
}

// ---- block scales -------------------------------------------------------------------------------------------------

TEST(MergedScalesTest, BlockScalesAreRescaledAndNeverBecomeZero) {
  Merge merge;
  merge.AddNvfp4("q", "weight_scale_2", 1e-5f);
  merge.AddNvfp4("k", "weight_scale_2", 1.0f);
  const ExecReport report = Must(merge.Run());
  const std::string& scales = merge.written["weight_scale"].bytes;
  std::string want = Rescaled(AllCodes(), static_cast<double>(1e-5f));
  for (size_t code = 1; code < 0x7F; ++code) {
    if (want[code] == 0) want[code] = 1;
  }
  EXPECT_EQ(scales, want + AllCodes());
  EXPECT_EQ(scales[0], 0) << "a scale of zero stays zero";
  EXPECT_EQ(scales[1], 1);
  EXPECT_EQ(merge.written["weight_scale_2"].bytes, F32({1.0f}));
  EXPECT_EQ(merge.written["weight"].bytes, test::FillBytes("q", 2048) + test::FillBytes("k", 2048))
      << "values stay what they are";
  ASSERT_EQ(report.rescaled.size(), 1u);
  EXPECT_EQ(report.rescaled[0].tensor, "weight_scale");
  EXPECT_EQ(report.rescaled[0].scalar, "weight_scale_2");
  Cost cost;
  cost.Add(AllCodes(), want, static_cast<double>(1e-5f));
  cost.Add(AllCodes(), AllCodes(), 1);
  cost.Expect(report.rescaled[0]);
}

TEST(MergedScalesTest, OfReciprocalScalesTheSmallestWins) {
  Merge merge;
  merge.AddNvfp4("q", "weight_global_scale", 3.0f);
  merge.AddNvfp4("k", "weight_global_scale", 2.0f);
  Must(merge.Run());
  EXPECT_EQ(merge.written["weight_global_scale"].bytes, F32({2.0f}));
  EXPECT_EQ(merge.written["weight_scale"].bytes, Rescaled(AllCodes(), (1.0 / 3.0) / (1.0 / 2.0)) + AllCodes());
}

TEST(MergedScalesTest, ActivationScalesAreMergedWithoutRescaling) {
  Merge merge;
  for (const float scale : {2.0f, 5.0f, 3.0f}) {
    merge.Add(fmt::format("w{}", scale), {4, 64},
              {{"weight", DType::kF8E4M3, {4, 64}, {Axis{0, 1}, Axis{1, 1}}, AllCodes()},
               {"input_scale", DType::kF32, {}, {std::nullopt, std::nullopt}, F32({scale})},
               {"input_global_scale", DType::kF32, {}, {std::nullopt, std::nullopt}, F32({scale})}});
  }
  const ExecReport report = Must(merge.Run());
  EXPECT_EQ(merge.written["weight"].bytes, AllCodes() + AllCodes() + AllCodes());
  EXPECT_EQ(merge.written["input_scale"].bytes, F32({5.0f}));
  EXPECT_EQ(merge.written["input_global_scale"].bytes, F32({2.0f}));
  EXPECT_THAT(report.rescaled, IsEmpty());
}

// ---- scalars ------------------------------------------------------------------------------------------------------

TEST(MergedScalesTest, ScalarsMayBeOfSixteenBits) {
  Merge bf16;
  bf16.AddFp8("q", Bf16(0.75f), DType::kBF16);
  bf16.AddFp8("k", Bf16(1.5f), DType::kBF16);
  Must(bf16.Run());
  EXPECT_EQ(bf16.written["weight"].bytes, Rescaled(AllCodes(), 0.5) + AllCodes());
  EXPECT_EQ(bf16.written["weight_scale"].bytes, Bf16(1.5f));

  Merge f16;
  f16.AddFp8("q", std::string("\x00\x3C", 2), DType::kF16);  // 1
  f16.AddFp8("k", std::string("\x00\x38", 2), DType::kF16);  // 0.5
  f16.AddFp8("v", std::string("\x01\x00", 2), DType::kF16);  // 2^-24, the smallest subnormal number
  Must(f16.Run());
  EXPECT_EQ(f16.written["weight_scale"].bytes, std::string("\x00\x3C", 2));
  EXPECT_EQ(f16.written["weight"].bytes, AllCodes() + Rescaled(AllCodes(), 0.5) + Rescaled(AllCodes(), std::exp2(-24)));
}

TEST(MergedScalesTest, StackedExpertsHaveAScaleEach) {
  Merge merge;
  const std::string half = AllCodes().substr(0, 128);
  const std::vector<std::vector<float>> scales = {{1.0f, 0.25f, 0.5f}, {0.5f, 0.75f, 0.5f}};
  for (size_t side = 0; side < 2; ++side) {
    merge.Add(fmt::format("side{}", side), {3, 2, 64},
              {{"weight", DType::kF8E4M3, {3, 2, 64}, {Axis{0, 1}, Axis{1, 1}, Axis{2, 1}}, half + half + half},
               {"weight_scale", DType::kF32, {3}, {Axis{0, 1}, std::nullopt, std::nullopt}, F32(scales[side])}});
  }
  const ExecReport report = Must(merge.Run(1));
  EXPECT_THAT(merge.written["weight"].shape, ElementsAre(3, 4, 64));
  EXPECT_EQ(merge.written["weight_scale"].bytes, F32({1.0f, 0.75f, 0.5f}));
  EXPECT_EQ(merge.written["weight"].bytes,
            half + Rescaled(half, 0.5) + Rescaled(half, 0.25 / 0.75) + half + half + half);
  ASSERT_EQ(report.rescaled.size(), 1u) << "one entry for the tensor, not for each expert";
  EXPECT_EQ(report.rescaled[0].elements, 768u);
}

TEST(MergedScalesTest, StacksWithoutExpertsHaveNothingToMerge) {
  Merge merge;
  for (const char* side : {"gate", "up"}) {
    merge.Add(side, {0, 2, 64},
              {{"weight", DType::kF8E4M3, {0, 2, 64}, {Axis{0, 1}, Axis{1, 1}, Axis{2, 1}}, ""},
               {"weight_scale", DType::kF32, {0}, {Axis{0, 1}, std::nullopt, std::nullopt}, ""}});
  }
  Must(merge.Run(1));
  EXPECT_THAT(merge.written["weight"].shape, ElementsAre(0, 4, 64));
  EXPECT_THAT(merge.written["weight_scale"].shape, ElementsAre(0));
}

TEST(MergedScalesTest, AScalarThatIsNoPositiveNumberIsRefusedByItsName) {
  for (const float bad :
       {0.0f, -0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Merge merge;
    merge.AddFp8("q", F32({0.5f}));
    merge.AddFp8("k", F32({bad}));
    EXPECT_THAT(ErrorLines(merge.Run()),
                ElementsAre("QuantConversionUnsupportedError k.weight_scale: weight_scale is no positive number, so "
                            "weights can't be put under a common scale"))
        << bad;
  }
}

TEST(MergedScalesTest, EveryBadScalarIsNamed) {
  Merge merge;
  for (const char* name : {"q", "k"}) {
    merge.Add(name, {4, 64},
              {{"weight", DType::kF8E4M3, {4, 64}, {Axis{0, 1}, Axis{1, 1}}, AllCodes()},
               {"weight_scale", DType::kF32, {}, {std::nullopt, std::nullopt}, F32({0.0f})},
               {"input_scale", DType::kF32, {}, {std::nullopt, std::nullopt}, F32({-2.0f})}});
  }
  EXPECT_THAT(ErrorLines(merge.Run()), ElementsAre(HasSubstr("q.weight_scale"), HasSubstr("q.input_scale")));
}

TEST(MergedScalesTest, ScalesThatAreNoScalarsAreRefused) {
  Merge merge;
  for (const char* name : {"a", "b"}) {
    merge.Add(name, {2, 2, 64},
              {{"weight", DType::kF8E4M3, {2, 2, 64}, {Axis{0, 1}, Axis{1, 1}, Axis{2, 1}}, AllCodes()},
               {"weight_scale", DType::kF32, {2, 2}, {Axis{0, 1}, Axis{1, 1}, std::nullopt}, F32({1, 2, 3, 4})}});
  }
  EXPECT_THAT(ErrorLines(merge.Run(2)), ElementsAre(HasSubstr("weight_scale is no scalar")));
}

TEST(MergedScalesTest, ScalesThatAllWeightsShareCantBePutUnderACommonScale) {
  const std::vector<std::optional<Axis>> none = {std::nullopt, std::nullopt};
  Merge merge;
  for (const char* name : {"q", "k"}) {
    merge.Add(name, {4, 64},
              {{"weight", DType::kF8E4M3, {4, 64}, {Axis{0, 1}, Axis{1, 1}}, AllCodes()},
               {"weight_scale", DType::kF8E4M3, {}, none, "8"},
               {"weight_scale_2", DType::kF32, {}, none, F32({1})}});
  }
  EXPECT_THAT(ErrorLines(merge.Run()), ElementsAre(HasSubstr("weight_scale is one for all that are joined: what lies "
                                                             "under weight_scale_2 can't be re-expressed")));
}

TEST(MergedScalesTest, ScalesThatAllExpertsShareCantBePutUnderScalesOfTheirOwn) {
  Merge merge;
  for (const char* name : {"gate", "up"}) {
    merge.Add(name, {2, 2, 64},
              {{"weight", DType::kF8E4M3, {2, 2, 64}, {Axis{0, 1}, Axis{1, 1}, Axis{2, 1}}, AllCodes()},
               {"weight_scale", DType::kF8E4M3, {2, 4}, {std::nullopt, Axis{0, 1}, Axis{1, 16}}, "88888888"},
               {"weight_scale_2", DType::kF32, {2}, {Axis{0, 1}, std::nullopt, std::nullopt}, F32({1, 2})}});
  }
  EXPECT_THAT(ErrorLines(merge.Run(1)), ElementsAre(HasSubstr("weight_scale is one for all that are joined")));
}

}  // namespace
}  // namespace quantport
