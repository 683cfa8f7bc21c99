// The rows of the layout table: one linear of each format, as its exporter stores it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "layout/recognize.h"
#include "layout/reorder.h"
#include "layout/shared_scales.h"
#include "unit/dense.h"
#include "unit/error_lines.h"
#include "unit/one_linear.h"

namespace quantport {
namespace {

using test::ErrorLines;
using test::OnlyUnit;
using test::Row;
using test::Shape;
using test::Store;
using testing::ElementsAre;

// What a part's axes should be: for each logical dimension "dim/granularity", "dim/granularity*multiple", or "-".
std::string AxesText(const WeightUnit& unit, const std::string& leaf) {
  const StoredPart* part = unit.weight.Find(leaf);
  if (part == nullptr) return "no " + leaf;
  std::string text;
  for (const auto& axis : part->axes) {
    text += text.empty() ? "" : " ";
    text += axis ? std::to_string(axis->dim) + "/" + std::to_string(axis->granularity) : "-";
    if (axis && axis->multiple != 1) text += "*" + std::to_string(axis->multiple);
    if (axis && !axis->whole.empty()) text += "!";
  }
  return text;
}

// One linear of each format: its tensors, what they are recognized as, and where the logical dimensions stand.
struct FormatCase {
  std::string format;
  Shape logical;
  std::vector<Row> rows;
  std::vector<std::pair<std::string, std::string>> axes;
};

void ExpectRecognized(const FormatCase& c, const RecognizeOptions& options = {}) {
  SCOPED_TRACE(c.format + " " + c.rows[0].leaf);
  const WeightUnit unit = OnlyUnit(c.rows, options);
  EXPECT_EQ(FormatName(unit.weight.format), c.format);
  EXPECT_EQ(unit.weight.shape, c.logical);
  EXPECT_EQ(unit.weight.parts.size(), c.rows.size());
  for (const auto& [leaf, axes] : c.axes) EXPECT_EQ(AxesText(unit, leaf), axes) << leaf;
}

TEST(FormatsTest, TakesASizeThatOverflowsForNoFormat) {
  constexpr uint64_t kHalf = uint64_t{1} << 63;
  ExpectRecognized({"unrecognized",
                    {0, kHalf},
                    {{"weight", DType::kU8, {0, kHalf}},
                     {"weight_scale", DType::kF8E4M3, {0, 0}},
                     {"weight_scale_2", DType::kF32, {}}},
                    {}});
}

// A stranger's header may state a million dimensions, and parts list each of them several times.
TEST(FormatsTest, TakesMoreDimensionsThanTensorsHaveForNoFormat) {
  const std::vector<uint64_t> ones(65, 1);
  const WeightUnit unit = OnlyUnit({{"weight", DType::kU8, ones}});
  EXPECT_EQ(FormatName(unit.weight.format), "unrecognized");
  EXPECT_EQ(unit.weight.misfit->text, "a tensor states a shape that none has");
  EXPECT_EQ(FormatName(OnlyUnit({{"weight", DType::kF64, {1, 1, 1, 1, 1, 1, 1, 1}}}).weight.format), "plain");
}

TEST(FormatsTest, LooksForCompanionsOfAWeightBesideItAlone) {
  const auto units =
      RecognizeUnits(test::Module({{"weight", DType::kBF16, {4, 4}}, {"weight_input_scale", DType::kF32, {}}}), {});
  ASSERT_TRUE(units.ok());
  ASSERT_EQ(units->size(), 2u);
  EXPECT_EQ((*units)[1].key, "m.weight_input_scale");
}

TEST(FormatsTest, KnowsTheVariantsOfNvfp4) {
  const std::vector<Row> nvfp4 = {{"weight", DType::kU8, {8, 32}},
                                  {"weight_scale", DType::kF8E4M3, {8, 4}},
                                  {"weight_scale_2", DType::kF32, {}},
                                  {"input_scale", DType::kF32, {}}};
  auto awq = nvfp4;
  awq.push_back({"pre_quant_scale", DType::kBF16, {64}});
  ExpectRecognized({"NVFP4_AWQ", {8, 64}, awq, {{"pre_quant_scale", "- 0/1"}, {"weight_scale", "0/1 1/16"}}});
  auto svd = awq;
  svd.push_back({"svdquant_lora_a", DType::kBF16, {3, 64}});
  svd.push_back({"svdquant_lora_b", DType::kBF16, {8, 3}});
  ExpectRecognized({"NVFP4_SVD", {8, 64}, svd, {{"svdquant_lora_a", "- 1/1"}, {"svdquant_lora_b", "0/1 -"}}});
  auto wide = nvfp4;
  wide[1].shape = {8, 2};
  ExpectRecognized({"W4A8_NVFP4_FP8", {8, 64}, wide, {{"weight_scale", "0/1 1/32"}, {"input_scale", "- -"}}});
}

TEST(FormatsTest, KnowsTheFactorsOfNvfp4BelowTheQuantizer) {
  const std::string quantizer = "weight_quantizer._svdquant_lora_";
  ExpectRecognized({"NVFP4_SVD",
                    {8, 64},
                    {{"weight", DType::kU8, {8, 32}},
                     {"weight_scale", DType::kF8E4M3, {8, 4}},
                     {"weight_scale_2", DType::kF32, {}},
                     {quantizer + "a", DType::kBF16, {3, 64}},
                     {quantizer + "b", DType::kBF16, {8, 3}}},
                    {{quantizer + "a", "- 1/1"}, {quantizer + "b", "0/1 -"}}});
}

TEST(FormatsTest, KnowsMicroscaling) {
  for (const DType scale : {DType::kU8, DType::kF8E8M0}) {
    ExpectRecognized({"MXFP8",
                      {8, 64},
                      {{"weight", DType::kF8E4M3, {8, 64}}, {"weight_scale", scale, {8, 2}}},
                      {{"weight", "0/1 1/1"}, {"weight_scale", "0/1 1/32"}}});
    ExpectRecognized({"MXFP4",
                      {8, 64},
                      {{"weight", DType::kU8, {8, 32}}, {"weight_scale", scale, {8, 2}}},
                      {{"weight", "0/1 1/2"}, {"weight_scale", "0/1 1/32"}}});
    ExpectRecognized({"MXFP6",
                      {8, 64},
                      {{"weight", DType::kU8, {8, 48}}, {"weight_scale", scale, {8, 2}}},
                      {{"weight", "0/1 1/4*3"}, {"weight_scale", "0/1 1/32"}}});
  }
  ExpectRecognized(
      {"W4A8_MXFP4_FP8",
       {8, 64},
       {{"weight", DType::kU8, {8, 32}}, {"weight_scale", DType::kU8, {8, 2}}, {"input_scale", DType::kF32, {}}},
       {}});
  ExpectRecognized(
      {"W4A8_MXFP4_FP8", {8, 64}, {{"weight", DType::kU8, {8, 32}}, {"weight_scale", DType::kU8, {8, 2}}}, {}},
      {.algorithm = "W4A8_MXFP4_FP8"});
  ExpectRecognized({"FP4_BLOCK",
                    {8, 64},
                    {{"weight", DType::kI8, {8, 32}}, {"weight_scale_inv", DType::kF8E8M0, {8, 2}}},
                    {{"weight", "0/1 1/2"}, {"weight_scale_inv", "0/1 1/32"}}});
}

TEST(FormatsTest, KnowsIntegersOfModelOpt) {
  ExpectRecognized({"W4A16_AWQ",
                    {8, 256},
                    {{"weight", DType::kU8, {4, 256}},
                     {"weight_scale", DType::kF32, {8, 2}},
                     {"pre_quant_scale", DType::kBF16, {256}}},
                    {{"weight", "0/2 1/1"}, {"weight_scale", "0/1 1/128"}, {"pre_quant_scale", "- 0/1"}}});
  ExpectRecognized({"W4A8_AWQ",
                    {3, 8, 256},
                    {{"weight", DType::kU8, {3, 4, 256}},
                     {"weight_scale", DType::kF32, {3, 8, 2}},
                     {"weight_scale_2", DType::kF32, {3}},
                     {"input_scale", DType::kF32, {}}},
                    {{"weight", "0/1 1/2 2/1"}, {"weight_scale", "0/1 1/1 2/128"}, {"weight_scale_2", "0/1 - -"}}});
  ExpectRecognized({"W8A16",
                    {8, 64},
                    {{"weight", DType::kI8, {8, 64}}, {"weight_scale", DType::kF32, {8}}},
                    {{"weight_scale", "0/1 -"}}});
  ExpectRecognized({"W8A8_SQ_PER_CHANNEL",
                    {8, 64},
                    {{"weight", DType::kI8, {8, 64}},
                     {"weight_scale", DType::kF32, {8}},
                     {"pre_quant_scale", DType::kBF16, {64}},
                     {"input_scale", DType::kF32, {}}},
                    {{"pre_quant_scale", "- 0/1"}}});
}

TEST(FormatsTest, KnowsCompressedTensorsFp8AndInt8) {
  ExpectRecognized({"FP8_GROUP",
                    {8, 256},
                    {{"weight", DType::kF8E4M3, {8, 256}}, {"weight_scale", DType::kBF16, {8, 2}}},
                    {{"weight_scale", "0/1 1/128"}}});
  ExpectRecognized({"int-quantized",
                    {8, 256},
                    {{"weight", DType::kI8, {8, 256}},
                     {"weight_scale", DType::kBF16, {8, 1}},
                     {"weight_zero_point", DType::kI8, {8, 1}},
                     {"input_scale", DType::kBF16, {1}},
                     {"input_zero_point", DType::kI8, {1}}},
                    {{"weight_zero_point", "0/1 -"}, {"input_zero_point", "- -"}}});
  ExpectRecognized({"int-quantized",
                    {8, 256},
                    {{"weight", DType::kI8, {8, 256}}, {"weight_scale", DType::kBF16, {8, 2}}},
                    {{"weight_scale", "0/1 1/128"}}});
}

TEST(FormatsTest, KnowsPackedFloatsOfCompressedTensors) {
  ExpectRecognized({"nvfp4-pack-quantized",
                    {8, 64},
                    {{"weight_packed", DType::kU8, {8, 32}},
                     {"weight_scale", DType::kF8E4M3, {8, 4}},
                     {"weight_global_scale", DType::kF32, {1}},
                     {"input_global_scale", DType::kF32, {1}}},
                    {{"weight_packed", "0/1 1/2"}, {"weight_scale", "0/1 1/16"}, {"weight_global_scale", "- -"}}});
  ExpectRecognized({"mxfp4-pack-quantized",
                    {8, 64},
                    {{"weight_packed", DType::kU8, {8, 32}}, {"weight_scale", DType::kU8, {8, 2}}},
                    {{"weight_packed", "0/1 1/2"}, {"weight_scale", "0/1 1/32"}}});
}

// Little-endian numbers, as a tensor holds them.
template <typename T>
std::string Numbers(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string Text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(FormatsTest, KnowsPackedIntegersOfCompressedTensors) {
  const std::vector<Row> rows = {{"weight_packed", DType::kI32, {16, 8}},
                                 {"weight_scale", DType::kBF16, {16, 2}},
                                 {"weight_zero_point", DType::kI32, {2, 2}},
                                 {"weight_shape", DType::kI64, {2}}};
  const auto read = [](uint32_t) { return std::optional(Numbers<int64_t>({16, 64})); };
  ExpectRecognized({"pack-quantized",
                    {16, 64},
                    rows,
                    {{"weight_packed", "0/1 1/8"},
                     {"weight_scale", "0/1 1/32"},
                     {"weight_zero_point", "0/8 1/32"},
                     {"weight_shape", "- -"}}},
                   {.read = read});
  const WeightUnit unit = OnlyUnit(rows, {.read = read});
  EXPECT_EQ(Text(unit.weight.Find("weight_shape")->restate(Shape{8, 64})), Numbers<int64_t>({8, 64}));
  EXPECT_EQ(Text(unit.weight.Find("weight_shape")->restate(Shape{2, 8, 64})), Numbers<int64_t>({8, 64, 8, 64}));
}

TEST(FormatsTest, KnowsPackedIntegersThatStraddleWords) {
  const std::vector<Row> rows = {{"weight_packed", DType::kI32, {32, 6}},
                                 {"weight_scale", DType::kBF16, {32, 1}},
                                 {"weight_zero_point", DType::kI32, {3, 1}},
                                 {"weight_g_idx", DType::kI32, {64}},
                                 {"weight_shape", DType::kI64, {2}}};
  ExpectRecognized(
      {"pack-quantized",
       {32, 64},
       rows,
       {{"weight_packed", "0/1 1/32*3"}, {"weight_zero_point", "0/32*3 -"}, {"weight_g_idx", "- 0/64*64!"}}},
      {.read = [](uint32_t) {
        return std::optional(Numbers<int64_t>({32, 64}));
      }});
  // 60 values of 3 bits leave the last word half empty: no cut of the inputs is a cut of words.
  auto partial = rows;
  partial[3].shape = {60};
  ExpectRecognized({"pack-quantized", {32, 60}, partial, {{"weight_packed", "0/1 1/60*6!"}}}, {.read = [](uint32_t) {
                     return std::optional(Numbers<int64_t>({32, 60}));
                   }});
}

TEST(FormatsTest, TakesTheWidthOfPackedIntegersFromTheConfigWhereTheirShapeCantBeRead) {
  const std::vector<Row> rows = {{"weight_packed", DType::kI32, {16, 8}},
                                 {"weight_scale", DType::kBF16, {16, 2}},
                                 {"weight_shape", DType::kI64, {2}}};
  ExpectRecognized({"pack-quantized", {16, 64}, rows, {}}, {.bits = 4});
  ExpectRecognized({"pack-quantized", {16, 32}, rows, {}}, {.bits = 8});
  EXPECT_EQ(FormatName(OnlyUnit(rows).weight.format), "unrecognized");
  const auto nonsense = [](uint32_t) { return std::optional(Numbers<int64_t>({7, 1 << 20})); };
  EXPECT_EQ(FormatName(OnlyUnit(rows, {.read = nonsense}).weight.format), "unrecognized");
}

TEST(FormatsTest, KnowsGptqOfEveryWidth) {
  struct Width {
    uint64_t bits;
    std::string in;
    std::string out;
  };
  for (const auto& [bits, in, out] :
       std::vector<Width>{{2, "0/16", "1/16"}, {3, "0/32*3", "1/32*3"}, {4, "0/8", "1/8"}, {8, "0/4", "1/4"}}) {
    const std::vector<Row> rows = {{"qweight", DType::kI32, {128 * bits / 32, 64}},
                                   {"qzeros", DType::kI32, {2, 64 * bits / 32}},
                                   {"scales", DType::kF16, {2, 64}},
                                   {"g_idx", DType::kI32, {128}}};
    ExpectRecognized(
        {"GPTQ",
         {64, 128},
         rows,
         {{"qweight", "1/1 " + in}, {"qzeros", out + " 0/64"}, {"scales", "1/1 0/64"}, {"g_idx", "- 0/128*128!"}}});
    const WeightUnit ordered = OnlyUnit(rows, {.ordered_groups = true});
    EXPECT_EQ(AxesText(ordered, "g_idx"), "- 0/1");
    EXPECT_EQ(Text(ordered.weight.Find("g_idx")->restate(Shape{64, 66})).substr(64 * 4), Numbers<int32_t>({1, 1}));
    const std::string one = Text(ordered.weight.Find("g_idx")->restate(Shape{64, 66}));
    EXPECT_EQ(Text(ordered.weight.Find("g_idx")->restate(Shape{2, 64, 66})), one + one) << "stacked experts";
  }
}

TEST(FormatsTest, KnowsAwqAndQuarkWords) {
  ExpectRecognized(
      {"AWQ",
       {64, 128},
       {{"qweight", DType::kI32, {128, 8}}, {"qzeros", DType::kI32, {2, 8}}, {"scales", DType::kF16, {2, 64}}},
       {{"qweight", "1/8 0/1"}, {"qzeros", "1/8 0/64"}, {"scales", "1/1 0/64"}}});
  ExpectRecognized({"QUARK_INT4",
                    {64, 128},
                    {{"weight", DType::kI32, {128, 8}},
                     {"weight_scale", DType::kBF16, {2, 64}},
                     {"weight_zero_point", DType::kI32, {2, 8}}},
                    {{"weight", "1/8 0/1"}, {"weight_zero_point", "1/8 0/64"}, {"weight_scale", "1/1 0/64"}}});
  ExpectRecognized({"QUARK_INT4",
                    {64, 128},
                    {{"weight", DType::kI32, {64, 16}},
                     {"weight_scale", DType::kBF16, {64}},
                     {"weight_zero_point", DType::kI32, {8}}},
                    {{"weight", "0/1 1/8"}, {"weight_zero_point", "0/8 -"}, {"weight_scale", "0/1 -"}}});
}

constexpr std::string_view kState = R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [8, 32]})";

TEST(FormatsTest, KnowsBitsAndBytes) {
  const std::vector<Row> rows = {{"weight", DType::kU8, {128, 1}},
                                 {"weight.absmax", DType::kF32, {4}},
                                 {"weight.quant_map", DType::kF32, {16}},
                                 {"weight.quant_state.bitsandbytes__nf4", DType::kU8, {80}}};
  const RecognizeOptions options = {.read = [](uint32_t) { return std::optional(std::string(kState)); }};
  ExpectRecognized({"BITSANDBYTES_4BIT",
                    {8, 32},
                    rows,
                    {{"weight", "0/1*16 0/1!"}, {"weight.absmax", "0/2 0/1!"}, {"weight.quant_map", "- -"}}},
                   options);
  const WeightUnit unit = OnlyUnit(rows, options);
  EXPECT_EQ(Text(unit.weight.parts[3].restate(Shape{2, 32})),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [2, 32]})");
  EXPECT_EQ(FormatName(OnlyUnit(rows).weight.format), "unrecognized");
  auto nested = rows;
  nested[1].dtype = DType::kU8;
  nested.push_back({"weight.nested_absmax", DType::kF32, {1}});
  nested.push_back({"weight.nested_quant_map", DType::kF32, {256}});
  ExpectRecognized({"BITSANDBYTES_4BIT", {8, 32}, nested, {{"weight.absmax", "0/2! 0/1!"}}}, options);
  ExpectRecognized({"BITSANDBYTES_INT8",
                    {8, 16},
                    {{"weight", DType::kI8, {8, 16}}, {"SCB", DType::kF32, {8}}, {"weight_format", DType::kU8, {}}},
                    {{"SCB", "0/1 -"}, {"weight_format", "- -"}}});
}

TEST(FormatsTest, KnowsBlocksOfGptOssByTheParameterTheyStandFor) {
  Store store;
  store.Add("experts.gate_up_proj_bias", DType::kBF16, {3, 8});
  store.Add("experts.gate_up_proj_blocks", DType::kU8, {3, 8, 2, 16});
  store.Add("experts.gate_up_proj_scales", DType::kU8, {3, 8, 2});
  store.Add("encoder_blocks", DType::kBF16, {4});
  const auto units = RecognizeUnits(store.table, {.quantized = true});
  ASSERT_TRUE(units.ok());
  ASSERT_EQ(units->size(), 3u);
  EXPECT_EQ((*units)[0].role, UnitRole::kBias);
  EXPECT_EQ((*units)[0].owner, "experts.gate_up_proj");
  const WeightUnit& unit = (*units)[1];
  EXPECT_EQ(unit.key, "experts.gate_up_proj");
  EXPECT_EQ(FormatName(unit.weight.format), "MXFP4_BLOCKS");
  EXPECT_THAT(unit.weight.shape, ElementsAre(3, 64, 8));
  EXPECT_EQ(AxesText(unit, "blocks"), "0/1 2/32 1/1");
  EXPECT_EQ(AxesText(unit, "scales"), "0/1 2/32 1/1");
  EXPECT_EQ(PartTensorName(unit.key, unit.style, "blocks"), "experts.gate_up_proj_blocks");
  EXPECT_EQ((*units)[2].key, "encoder_blocks");
  EXPECT_THAT(ValueKeys({"e.p_blocks", "e.p_scales", "e.p_bias"}), ElementsAre("e.p", "e.p_bias"));
}

TEST(FormatsTest, KnowsStackedFineGrainedFp8AndHowItsScalesAreJoined) {
  struct Case {
    Shape weight;
    Shape scale;
    std::string format;
    std::string axes;
  };
  const std::vector<Case> cases = {
      {{2, 512, 256}, {2, 4, 2}, "FP8_BLOCK", "0/1 1/128 2/128"},
      {{2, 64, 256}, {2, 2, 2}, "FP8_BLOCK", "0/1 1/32 2/128"},
      {{2, 400, 256}, {2, 4, 2}, "FP8_BLOCK", "0/1 1/200*2 2/128"},
      {{2, 512, 256}, {2, 2, 1}, "FP8", "0/1 1/256 -"},
      {{2, 512, 256}, {2, 1, 1}, "FP8", "0/1 - -"},
  };
  for (const Case& c : cases) {
    Store store;
    store.Add("experts.gate_up_proj", DType::kF8E4M3, c.weight);
    store.Add("experts.gate_up_proj_scale_inv", DType::kF32, c.scale);
    store.Add("experts.gate_up_proj_activation_scale", DType::kF32, {2});
    const auto units = RecognizeUnits(store.table, {});
    ASSERT_TRUE(units.ok());
    ASSERT_EQ(units->size(), 1u);
    const WeightUnit& unit = (*units)[0];
    EXPECT_EQ(FormatName(unit.weight.format), c.format);
    EXPECT_EQ(AxesText(unit, "weight_scale_inv"), c.axes);
    EXPECT_EQ(AxesText(unit, "activation_scale"), "0/1 - -");
    const StoredPart& scale = *unit.weight.Find("weight_scale_inv");
    EXPECT_EQ(PartTensorName("e.p", NameStyle::kParameter, scale.leaf, scale.suffix), "e.p_scale_inv");
    EXPECT_EQ(PartTensorName("e.p.weight", NameStyle::kModule, scale.leaf, scale.suffix), "e.p.weight_scale_inv");
  }
}

TEST(FormatsTest, KnowsBatchedExpertsByTheirPackedDimension) {
  Store store;
  store.Add("a.down_proj", DType::kU8, {4, 32, 12});
  store.Add("a.down_proj_weight_scale", DType::kU8, {4, 2, 12});
  store.Add("b.down_proj", DType::kF8E4M3, {4, 64, 12});
  store.Add("b.down_proj_weight_scale", DType::kF32, {4, 12});
  store.Add("c.down_proj", DType::kU8, {4, 32, 12});
  store.Add("c.down_proj_weight_scale", DType::kF8E4M3, {4, 4, 12});
  store.Add("c.down_proj_weight_scale_2", DType::kF32, {});
  store.Add("c.down_proj_pre_quant_scale", DType::kBF16, {64});
  const auto units = RecognizeUnits(store.table, {});
  ASSERT_TRUE(units.ok());
  ASSERT_EQ(units->size(), 3u);
  EXPECT_EQ(FormatName((*units)[0].weight.format), "MXFP4");
  EXPECT_EQ(AxesText((*units)[0], "weight_scale"), "0/1 1/32 2/1");
  EXPECT_EQ(FormatName((*units)[1].weight.format), "FP8_PER_CHANNEL_PER_TOKEN");
  EXPECT_EQ(AxesText((*units)[1], "weight_scale"), "0/1 - 1/1");
  EXPECT_EQ(FormatName((*units)[2].weight.format), "NVFP4_AWQ");
  EXPECT_EQ(AxesText((*units)[2], "pre_quant_scale"), "- 0/1 -");
}

// ---- what storage does not allow --------------------------------------------------------------------------------

// A linear of 4-bit integers in words: weights packed along the inputs, zero points along the outputs.
WeightUnit Gptq() {
  return OnlyUnit({{"qweight", DType::kI32, {16, 64}},
                   {"qzeros", DType::kI32, {2, 8}},
                   {"scales", DType::kF16, {2, 64}},
                   {"g_idx", DType::kI32, {128}}});
}

TEST(FormatsTest, RefusesToMoveRowsThatShareAWord) {
  EXPECT_THAT(ErrorLines(TransposeStretches(Gptq().weight, 0, 2, 4)),
              ElementsAre("QuantConversionUnsupportedError rows move within stretches of 8, and qzeros stores one "
                          "element for 8 rows: they would have to change blocks"));
}

TEST(FormatsTest, RefusesToCutOrJoinOrMoveInputsInActivationOrder) {
  const std::string error =
      "QuantConversionUnsupportedError g_idx: the groups of inputs are numbered through, in the order of activations";
  const LogicalWeight weight = Gptq().weight;
  EXPECT_THAT(ErrorLines(Chunk(weight, 1, 2, 0)), ElementsAre(error));
  SharedScales shared;
  EXPECT_THAT(ErrorLines(ConcatenateWeights({weight, weight}, 1, &shared)), ElementsAre(error));
  EXPECT_TRUE(Chunk(weight, 0, 2, 0).ok());
}

TEST(FormatsTest, RefusesToTransposeBlocksThatAreADimension) {
  Store store;
  store.Add("e.p_blocks", DType::kU8, {3, 8, 2, 16});
  store.Add("e.p_scales", DType::kU8, {3, 8, 2});
  const auto units = RecognizeUnits(store.table, {});
  ASSERT_TRUE(units.ok());
  EXPECT_THAT(
      ErrorLines(TransposeWeight((*units)[0].weight, 1, 2)),
      ElementsAre("QuantConversionUnsupportedError each row of blocks ends in a dimension of blocks, and would not if "
                  "transposed"));
}

TEST(FormatsTest, TakesExpertsOutOfARowOfValues) {
  const WeightUnit unit = OnlyUnit(
      {{"weight", DType::kU8, {256, 1}},
       {"weight.absmax", DType::kF32, {8}},
       {"weight.quant_state.bitsandbytes__nf4", DType::kU8, {80}}},
      {.read = [](uint32_t) { return std::optional<std::string>(R"({"blocksize": 64, "shape": [2, 8, 32]})"); }});
  EXPECT_THAT(unit.weight.shape, ElementsAre(2, 8, 32));
  const auto expert = Unstack(unit.weight, 0, 1);
  ASSERT_TRUE(expert.ok());
  EXPECT_THAT(expert->Find("weight")->array.shape, ElementsAre(128, 1));
  EXPECT_THAT(expert->Find("weight.absmax")->array.shape, ElementsAre(4));
}

TEST(LayoutNameTest, NamesEveryLayoutOnce) {
  std::vector<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(FormatId::kUnrecognized); ++i)
    names.push_back(FormatName(static_cast<FormatId>(i)));
  EXPECT_EQ(std::count(names.begin(), names.end(), "unrecognized"), 1);
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::unique(names.begin(), names.end()), names.end());
}

}  // namespace
}  // namespace quantport
