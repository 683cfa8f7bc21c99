// Held against what ModelOpt's own functions wrote on a CPU and on a GPU (tools/make_kernel_goldens.py), by both
// versions of the kernels.
#include <algorithm>
#include <set>

#include "base/checked.h"
#include "quantize/fp8.h"
#include "quantize/integer.h"
#include "quantize/mx.h"
#include "quantize/nvfp4.h"
#include "quantize/nvfp4_search.h"
#include "quantize_goldens.h"

namespace quantport::quantize {
namespace {

using test::Golden;
using Bytes = std::vector<uint8_t>;

const std::string kCuda = "cuda.";

const std::map<std::string, Golden>& Goldens() {
  static const auto goldens = [] {
    auto all = test::ReadGoldens("modelopt.safetensors");
    for (auto& [name, golden] : test::ReadGoldens("weights.safetensors")) all["shared." + name] = golden;
    for (auto& [name, golden] : test::ReadGoldens("modelopt-cuda.safetensors")) all[kCuda + name] = golden;
    return all;
  }();
  return goldens;
}

std::vector<std::string> Cases() {
  std::vector<std::string> cases;
  for (const char* name : {"normal", "spread", "steep", "ties", "half", "single", "zeros", "partial", "shared.normal",
                           "shared.ties", "shared.zeros", "shared.f16"}) {
    cases.push_back(name);
  }
  for (const char* name : {"normal", "spread", "steep", "ties", "half", "single", "zeros", "partial", "faint10",
                           "faint15", "faint19", "searched", "searched_half", "searched_single", "searched_spread"}) {
    cases.push_back(kCuda + name);
  }
  for (int i = 0; i < 20; ++i) cases.push_back(kCuda + "scaled" + std::to_string(i));
  return cases;
}

// What the files hold for a case: the formats that its shape allows, and for the oldest cases what they dequantize to.
std::set<std::string> Leaves(const std::string& test_case) {
  const auto has = [&](std::string_view part) { return test_case.find(part) != std::string::npos; };
  std::set<std::string> leaves = {"weight"};
  const auto add = [&](std::initializer_list<std::string> formats, std::initializer_list<std::string_view> names) {
    for (const std::string& format : formats) {
      for (const std::string_view name : names) leaves.insert(format + "." + std::string(name));
    }
  };
  if (has("searched")) {
    add({"search_four_over_six", "search_mse", "search_sweep"}, {"block_amax"});
    return leaves;
  }
  add({"fp8"}, {"weight", "weight_scale"});
  if (!has("shared")) add({"fp8_pb_wo", "fp8_pc_pt", "int8_wo"}, {"weight", "weight_scale"});
  if (test_case == "shared.normal") add({"fp8pb64"}, {"weight", "weight_scale"});
  if (!has("partial")) {
    add({"mxfp4", "mxfp8", "nvfp4"}, {"weight", "weight_scale"});
    add({"nvfp4"}, {"weight_scale_2"});
  }
  if (!has("partial") && !has("shared")) {
    add({"int4_awq"}, {"weight", "weight_scale"});
    add({"nvfp4_bs32", "nvfp4_four_over_six", "nvfp4_static", "w4a8_nvfp4_fp8"},
        {"weight", "weight_scale", "weight_scale_2"});
    add({"nvfp4_four_over_six", "nvfp4_static"}, {"block_amax"});
  }
  if (has("shared") || has("scaled") || has("faint")) return leaves;
  add({"fp8", "fp8_pb_wo", "int8_wo"}, {"deq"});
  if (!has("partial")) add({"mxfp4", "mxfp8", "nvfp4", "nvfp4_bs32"}, {"deq"});
  return leaves;
}

// The tests below skip what a case has no golden for: one that is lost must not skip its test.
TEST(QuantizeGoldensTest, EveryGoldenOfEveryCaseIsThereAndNoOther) {
  std::set<std::string> expected;
  for (const std::string& test_case : Cases()) {
    for (const std::string& leaf : Leaves(test_case)) expected.insert(test_case + "." + leaf);
  }
  for (const std::string& name : expected) EXPECT_TRUE(Goldens().contains(name)) << name << " is lost";
  for (const auto& [name, golden] : Goldens()) EXPECT_TRUE(expected.contains(name)) << name << " is of no case";
}

class QuantizeGoldenTest : public testing::TestWithParam<std::tuple<std::string, bool>> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Goldens().contains(Case() + ".weight"));
    weight_ = &Goldens().at(Case() + ".weight");
  }
  std::string Case() const { return std::get<0>(GetParam()); }
  Arithmetic arithmetic() const { return Case().starts_with(kCuda) ? Arithmetic::kCuda : Arithmetic::kCpu; }
  Numerics numerics() const { return {.arithmetic = arithmetic(), .bit_exact_zeros = true}; }
  const Kernels& kernels() const { return std::get<1>(GetParam()) ? SimdKernels() : ReferenceKernels(); }
  // Nothing where this weight was not quantized to that format.
  const Golden* Find(const std::string& leaf) const {
    const auto it = Goldens().find(Case() + "." + leaf);
    return it == Goldens().end() ? nullptr : &it->second;
  }
  Matrix matrix() const { return weight_->AsMatrix(); }
  ElementType type() const { return weight_->Type(); }
  size_t size() const { return matrix().rows * matrix().columns; }
  std::vector<float> Amax(BlockShape block) const {
    std::vector<float> amax(CeilDiv(matrix().rows, block.rows) * CeilDiv(matrix().columns, block.columns));
    EXPECT_TRUE(BlockAmax(matrix(), block, amax));
    return amax;
  }
  float TensorAmax() const { return Amax({matrix().rows, matrix().columns})[0]; }
  std::vector<float> Guarded(const std::vector<float>& amax, float largest, ElementType amax_type) const {
    std::vector<float> scales(amax.size());
    GuardedScales(amax, largest, amax_type, arithmetic(), scales);
    return scales;
  }

  const Golden* weight_ = nullptr;
};

TEST_P(QuantizeGoldenTest, Fp8PerTensor) {
  const Golden* golden = Find("fp8.weight");
  if (golden == nullptr) GTEST_SKIP();
  const float scale = Fp8TensorScale(TensorAmax(), numerics());
  EXPECT_EQ(scale, Find("fp8.weight_scale")->Floats()[0]);
  Bytes codes(size());
  ASSERT_TRUE(QuantizeFp8Tensor(matrix(), scale, arithmetic(), codes, kernels()));
  EXPECT_SAME_BYTES(codes, golden->bytes);
  if (const Golden* dequantized = Find("fp8.deq"); dequantized != nullptr && scale != 0) {
    Bytes output(dequantized->bytes.size());
    ASSERT_TRUE(DequantizeFp8(codes, matrix().rows, matrix().columns, {matrix().rows, matrix().columns}, {{scale}},
                              ScaleRounding::kToOutput, output, type(), kernels()));
    EXPECT_SAME_BYTES(output, dequantized->bytes);
  }
}

TEST_P(QuantizeGoldenTest, Fp8PerChannel) {
  const Golden* golden = Find("fp8_pc_pt.weight");
  if (golden == nullptr) GTEST_SKIP();
  const BlockShape block = {1, matrix().columns};
  const auto scales = Guarded(Amax(block), 448.0f, type());
  EXPECT_EQ(scales, Find("fp8_pc_pt.weight_scale")->Floats());
  Bytes codes(size());
  ASSERT_TRUE(QuantizeFp8(matrix(), block, scales, codes, kernels()));
  EXPECT_SAME_BYTES(codes, golden->bytes);
}

TEST_P(QuantizeGoldenTest, Fp8PerBlockOfWhichTheLastArePartial) {
  const Golden* golden = Find("fp8_pb_wo.weight");
  if (golden == nullptr) GTEST_SKIP();
  const auto scales = Guarded(Amax({128, 128}), 448.0f, type());
  EXPECT_EQ(scales, Find("fp8_pb_wo.weight_scale")->Floats());
  Bytes codes(size());
  ASSERT_TRUE(QuantizeFp8(matrix(), {128, 128}, scales, codes, kernels()));
  EXPECT_SAME_BYTES(codes, golden->bytes);
  if (const Golden* dequantized = Find("fp8_pb_wo.deq"); dequantized != nullptr) {
    Bytes output(dequantized->bytes.size());
    ASSERT_TRUE(DequantizeFp8(codes, matrix().rows, matrix().columns, {128, 128}, scales, ScaleRounding::kToOutput,
                              output, type(), kernels()));
    EXPECT_SAME_BYTES(output, dequantized->bytes);
  }
}

// Its scales were divided in BF16, and so were the quotients.
TEST_P(QuantizeGoldenTest, Fp8PerBlockOf64WithScalesOfTheWeightsOwnType) {
  const Golden* golden = Find("fp8pb64.weight");
  if (golden == nullptr) GTEST_SKIP();
  auto scales = Amax({64, 64});
  for (float& scale : scales) scale = RoundTo(type(), scale / 448.0f);
  EXPECT_EQ(scales, Find("fp8pb64.weight_scale")->Floats());
  Bytes codes(size());
  for (size_t row = 0; row < matrix().rows; ++row) {
    kernels().fp8(matrix().RowAt(row), scales.data(), 64, true, codes.data() + row * matrix().columns);
  }
  EXPECT_SAME_BYTES(codes, golden->bytes);
}

TEST_P(QuantizeGoldenTest, Nvfp4Dynamic) {
  for (const size_t block : {16, 32}) {
    const std::string format = block == 16 ? "nvfp4." : "nvfp4_bs32.";
    const Golden* golden = Find(format + "weight");
    if (golden == nullptr) continue;
    const float global_scale = Nvfp4GlobalScale(TensorAmax(), 448.0f, numerics());
    EXPECT_EQ(global_scale, Find(format + "weight_scale_2")->Floats()[0]);
    Bytes scales(size() / block), codes(size() / 2);
    ASSERT_TRUE(QuantizeNvfp4(matrix(), global_scale, block, numerics(), scales, codes, kernels()));
    EXPECT_SAME_BYTES(scales, Find(format + "weight_scale")->bytes);
    EXPECT_SAME_BYTES(codes, golden->bytes);
    if (const Golden* dequantized = Find(format + "deq"); dequantized != nullptr && global_scale != 0) {
      Bytes output(dequantized->bytes.size());
      ASSERT_TRUE(DequantizeNvfp4(codes, matrix().rows, matrix().columns, block, scales, global_scale, output, type(),
                                  kernels()));
      EXPECT_SAME_BYTES(output, dequantized->bytes);
    }
  }
}

TEST_P(QuantizeGoldenTest, Nvfp4WithTheGlobalScaleOfFp8) {
  const Golden* golden = Find("w4a8_nvfp4_fp8.weight");
  if (golden == nullptr) GTEST_SKIP();
  const float global_scale = Fp8TensorScale(TensorAmax(), numerics());
  EXPECT_EQ(global_scale, Find("w4a8_nvfp4_fp8.weight_scale_2")->Floats()[0]);
  Bytes scales(size() / 32), codes(size() / 2);
  ASSERT_TRUE(QuantizeNvfp4(matrix(), global_scale, 32, numerics(), scales, codes, kernels()));
  EXPECT_SAME_BYTES(scales, Find("w4a8_nvfp4_fp8.weight_scale")->bytes);
  EXPECT_SAME_BYTES(codes, golden->bytes);
}

TEST_P(QuantizeGoldenTest, Nvfp4Static) {
  for (const bool four_over_six : {false, true}) {
    const std::string format = four_over_six ? "nvfp4_four_over_six." : "nvfp4_static.";
    const Golden* golden = Find(format + "weight");
    if (golden == nullptr || TensorAmax() == 0) continue;
    const float normalization = four_over_six ? 256.0f : 448.0f;
    const float global_scale = Nvfp4GlobalScale(TensorAmax(), normalization, numerics());
    EXPECT_EQ(global_scale, Find(format + "weight_scale_2")->Floats()[0]);
    Bytes scales(size() / 16), codes(size() / 2);
    StaticNvfp4Scales(Find(format + "block_amax")->Floats(), TensorAmax(), normalization, arithmetic(), scales);
    EXPECT_SAME_BYTES(scales, Find(format + "weight_scale")->bytes);
    ASSERT_TRUE(QuantizeNvfp4WithScales(matrix(), global_scale, 16, scales, codes, kernels()));
    EXPECT_SAME_BYTES(codes, golden->bytes);
  }
}

TEST_P(QuantizeGoldenTest, Microscaling) {
  for (const FormatId format : {FormatId::kMxfp8, FormatId::kMxfp4}) {
    const std::string name = format == FormatId::kMxfp8 ? "mxfp8." : "mxfp4.";
    const Golden* golden = Find(name + "weight");
    if (golden == nullptr) continue;
    Bytes scales(size() / 32), codes(format == FormatId::kMxfp8 ? size() : size() / 2);
    ASSERT_TRUE(QuantizeMx(format, matrix(), scales, codes, kernels()));
    EXPECT_SAME_BYTES(scales, Find(name + "weight_scale")->bytes);
    EXPECT_SAME_BYTES(codes, golden->bytes);
    if (const Golden* dequantized = Find(name + "deq"); dequantized != nullptr) {
      Bytes output(dequantized->bytes.size());
      ASSERT_TRUE(DequantizeMx(format, codes, matrix().rows, matrix().columns, scales, output, type(), kernels()));
      EXPECT_SAME_BYTES(output, dequantized->bytes);
    }
  }
}

TEST_P(QuantizeGoldenTest, Int8PerChannel) {
  const Golden* golden = Find("int8_wo.weight");
  if (golden == nullptr) GTEST_SKIP();
  const auto scales = Guarded(Amax({1, matrix().columns}), 127.0f, type());
  EXPECT_EQ(scales, Find("int8_wo.weight_scale")->Floats());
  Bytes codes(size());
  ASSERT_TRUE(QuantizeInt8(matrix(), matrix().columns, scales, codes, kernels()));
  EXPECT_SAME_BYTES(codes, golden->bytes);
  if (const Golden* dequantized = Find("int8_wo.deq"); dequantized != nullptr) {
    Bytes output(dequantized->bytes.size());
    ASSERT_TRUE(DequantizeInt8(codes, matrix().rows, matrix().columns, matrix().columns, scales,
                               ScaleRounding::kToOutput, output, type(), kernels()));
    EXPECT_SAME_BYTES(output, dequantized->bytes);
  }
}

TEST_P(QuantizeGoldenTest, Int4InGroups) {
  const Golden* golden = Find("int4_awq.weight");
  if (golden == nullptr) GTEST_SKIP();
  const auto scales = Guarded(Amax({1, 128}), 7.0f, ElementType::kF32);
  EXPECT_EQ(scales, Find("int4_awq.weight_scale")->Floats());
  Bytes codes(size() / 2);
  ASSERT_TRUE(QuantizeInt4(matrix(), 128, scales, codes, kernels()));
  EXPECT_SAME_BYTES(codes, golden->bytes);
}

TEST_P(QuantizeGoldenTest, Nvfp4Search) {
  if (Find("search_mse.block_amax") == nullptr) GTEST_SKIP();
  std::vector<float> amax(size() / 16);
  ASSERT_TRUE(SweepNvfp4Amax(matrix(), 16, TensorAmax(), amax));
  EXPECT_EQ(amax, Find("search_sweep.block_amax")->Floats());
  ASSERT_TRUE(SearchNvfp4Amax(matrix(), 16, TensorAmax(), 448.0f, SearchMultipliers(0.25, 4.0, 0.1), amax));
  EXPECT_EQ(amax, Find("search_mse.block_amax")->Floats());
  ASSERT_TRUE(SearchNvfp4Amax(matrix(), 16, TensorAmax(), 256.0f, std::vector<float>{1.0f, 1.5f}, amax));
  EXPECT_EQ(amax, Find("search_four_over_six.block_amax")->Floats());
}

INSTANTIATE_TEST_SUITE_P(Weights, QuantizeGoldenTest, testing::Combine(testing::ValuesIn(Cases()), testing::Bool()),
                         [](const auto& test_case) {
                           std::string name = std::get<0>(test_case.param);
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name + (std::get<1>(test_case.param) ? "_Simd" : "_Reference");
                         });

}  // namespace
}  // namespace quantport::quantize
