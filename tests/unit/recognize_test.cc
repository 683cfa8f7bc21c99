#include "layout/recognize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/dense.h"
#include "unit/error_lines.h"
#include "unit/one_linear.h"

namespace quantport {
namespace {

using test::ErrorLines;
using test::Module;
using test::OnlyUnit;
using test::Row;
using test::Shape;
using test::Store;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> Missing(const std::vector<Row>& rows, bool quantized = false) {
  return ErrorLines(RecognizeUnits(Module(rows), {.quantized = quantized}));
}

std::vector<std::string> Keys(const TensorTable& table) {
  const auto units = RecognizeUnits(table, {});
  std::vector<std::string> keys;
  if (!units) return ErrorLines(units);
  for (const WeightUnit& unit : *units) keys.push_back(unit.key);
  return keys;
}

std::vector<std::string> Leaves(const WeightUnit& unit) {
  std::vector<std::string> leaves;
  for (const StoredPart& part : unit.weight.parts) leaves.push_back(part.leaf);
  return leaves;
}

// ---- one row of the layout table each ---------------------------------------------------------------------------

TEST(RecognizeTest, KnowsUnquantizedWeights) {
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{4, 6}, Shape{3, 4, 6}, Shape{2, 3, 4, 5}}) {
    const WeightUnit unit = OnlyUnit({{"weight", DType::kBF16, shape}});
    EXPECT_EQ(unit.weight.format, FormatId::kPlain);
    EXPECT_EQ(unit.weight.shape, shape);
    EXPECT_EQ(unit.key, "m.weight");
    EXPECT_EQ(unit.module, "m");
  }
}

TEST(RecognizeTest, KnowsNvfp4) {
  const std::vector<Row> rows = {{"input_scale", DType::kF32, {}},
                                 {"weight", DType::kU8, {8, 16}},
                                 {"weight_scale", DType::kF8E4M3, {8, 2}},
                                 {"weight_scale_2", DType::kF32, {}}};
  const WeightUnit unit = OnlyUnit(rows);
  EXPECT_EQ(unit.weight.format, FormatId::kNvfp4);
  EXPECT_THAT(unit.weight.shape, ElementsAre(8, 32));
  EXPECT_THAT(Leaves(unit), ElementsAre("weight", "weight_scale", "weight_scale_2", "input_scale"));
  EXPECT_THAT(unit.tensors, ElementsAre(1, 2, 3, 0));
  EXPECT_EQ(OnlyUnit({rows[1], rows[2], rows[3]}).weight.format, FormatId::kNvfp4WeightOnly);
}

TEST(RecognizeTest, KnowsNvfp4InBlocksOfThirtyTwo) {
  const WeightUnit unit = OnlyUnit(
      {{"weight", DType::kU8, {8, 32}}, {"weight_scale", DType::kF8E4M3, {8, 2}}, {"weight_scale_2", DType::kF32, {}}});
  EXPECT_EQ(unit.weight.format, FormatId::kNvfp4WeightOnly);
  EXPECT_EQ(unit.weight.parts[1].axes[1]->granularity, 32u);
}

TEST(RecognizeTest, KnowsNvfp4PackedAlongTheLastButOneDimension) {
  Store store;
  store.Add("experts.gate_up_proj", DType::kU8, {4, 16, 12});
  store.Add("experts.gate_up_proj_weight_scale", DType::kF8E4M3, {4, 2, 12});
  store.Add("experts.gate_up_proj_weight_scale_2", DType::kF32, {4});
  const auto units = RecognizeUnits(store.table, {});
  ASSERT_TRUE(units.ok());
  ASSERT_EQ(units->size(), 1u);
  const WeightUnit& unit = (*units)[0];
  EXPECT_EQ(unit.key, "experts.gate_up_proj");
  EXPECT_EQ(unit.module, "experts");
  EXPECT_EQ(unit.style, NameStyle::kParameter);
  EXPECT_EQ(unit.weight.format, FormatId::kNvfp4WeightOnly);
  EXPECT_THAT(unit.weight.shape, ElementsAre(4, 32, 12));
  EXPECT_THAT(Leaves(unit), ElementsAre("", "weight_scale", "weight_scale_2"));
}

TEST(RecognizeTest, KnowsFp8ByTheShapeOfItsScale) {
  struct Case {
    std::string leaf;
    Shape weight;
    Shape scale;
    FormatId format;
  };
  const std::vector<Case> cases = {
      {"weight_scale", {256, 384}, {}, FormatId::kFp8PerTensor},
      {"weight_scale", {256, 384}, {1}, FormatId::kFp8PerTensor},
      {"weight_scale", {4, 256, 384}, {4}, FormatId::kFp8PerTensor},
      {"weight_scale", {4, 256, 384}, {4, 1, 1}, FormatId::kFp8PerTensor},
      {"weight_scale", {256, 384}, {256}, FormatId::kFp8PerChannel},
      {"weight_scale", {256, 384}, {256, 1}, FormatId::kFp8PerChannel},
      {"weight_scale", {4, 256, 384}, {4, 256}, FormatId::kFp8PerChannel},
      {"weight_scale", {4, 256, 384}, {4, 256, 1}, FormatId::kFp8PerChannel},
      {"weight_scale", {256, 384}, {2, 1, 3, 1}, FormatId::kFp8Block},
      {"weight_scale_inv", {256, 384}, {2, 3}, FormatId::kFp8Block},
      {"weight_scale_inv", {200, 300}, {2, 3}, FormatId::kFp8Block},
      {"weight_scale_inv", {4, 256, 384}, {4, 2, 3}, FormatId::kFp8Block},
      {"weight_scale", {256, 384}, {3, 2}, FormatId::kUnrecognized},
      {"weight_scale", {256, 384}, {384}, FormatId::kUnrecognized},
      {"weight_scale", {256, 384}, {256, 384}, FormatId::kUnrecognized},
  };
  for (const Case& c : cases) {
    const WeightUnit unit = OnlyUnit({{"weight", DType::kF8E4M3, c.weight}, {c.leaf, DType::kF32, c.scale}});
    EXPECT_EQ(FormatName(unit.weight.format), FormatName(c.format)) << testing::PrintToString(c.scale);
    EXPECT_EQ(unit.weight.shape, c.weight);
    // No producer writes weights so, and kernels would take them for E4M3.
    const WeightUnit other = OnlyUnit({{"weight", DType::kF8E5M2, c.weight}, {c.leaf, DType::kF32, c.scale}});
    EXPECT_EQ(other.weight.format, FormatId::kUnrecognized);
  }
}

TEST(RecognizeTest, TakesTheBlockSizeOfTheConfig) {
  const std::vector<Row> rows = {{"weight", DType::kF8E4M3, {128, 192}}, {"weight_scale_inv", DType::kF32, {2, 3}}};
  EXPECT_EQ(OnlyUnit(rows, {.fp8_tile = {64, 64}}).weight.format, FormatId::kFp8Block);
  EXPECT_EQ(OnlyUnit(rows, {.fp8_tile = {128, 128}}).weight.format, FormatId::kUnrecognized);
}

// weight_scale_inv exists in block formats only; a weight of one tile has one scale all the same.
TEST(RecognizeTest, KnowsFp8BlocksByNameWhereThereIsOnlyOneTile) {
  const WeightUnit unit = OnlyUnit({{"weight", DType::kF8E4M3, {128, 128}}, {"weight_scale_inv", DType::kF32, {1, 1}}});
  EXPECT_EQ(FormatName(unit.weight.format), "FP8_BLOCK");
}

TEST(RecognizeTest, KeepsTensorsOfUnknownFormatsTogether) {
  const std::vector<std::vector<Row>> modules = {
      {{"weight_packed", DType::kI32, {8, 4}}, {"weight_scale", DType::kBF16, {3, 1}}},
      {{"weight_packed", DType::kU8, {8, 16}}, {"weight_scale", DType::kBF16, {8, 2}}},
      {{"qweight", DType::kI32, {2, 64}}, {"scales", DType::kF16, {1, 32}}},
      {{"qweight", DType::kI32, {16, 32}}, {"qzeros", DType::kI32, {3, 3}}, {"scales", DType::kF16, {16, 7}}},
      {{"weight", DType::kU8, {8, 16}}, {"weight_scale", DType::kU8, {5, 1}}},
      {{"weight", DType::kI32, {8, 16}}, {"weight_scale", DType::kF32, {5, 3}}},
      {{"weight", DType::kBF16, {8, 16}}, {"weight_scale", DType::kF32, {8}}}};
  for (const std::vector<Row>& rows : modules) {
    const WeightUnit unit = OnlyUnit(rows, {.quantized = true});
    EXPECT_EQ(FormatName(unit.weight.format), "unrecognized") << rows[0].leaf << " " << rows[1].leaf;
    EXPECT_EQ(unit.weight.parts.size(), rows.size());
    EXPECT_EQ(unit.key, "m.weight");
  }
}

// ---- companions that are missing --------------------------------------------------------------------------------

TEST(RecognizeTest, ReportsScalesWithoutTheirWeight) {
  EXPECT_THAT(Missing({{"weight_scale", DType::kF32, {}}}),
              ElementsAre("MissingCompanionError m.weight: weight_scale is stored without its weight"));
  EXPECT_THAT(Missing({{"input_scale", DType::kF32, {}}}),
              ElementsAre("MissingCompanionError m.weight: input_scale is stored without its weight"));
}

TEST(RecognizeTest, ReportsAMissingWeightScale) {
  EXPECT_THAT(Missing({{"weight", DType::kU8, {8, 16}}, {"weight_scale_2", DType::kF32, {}}}),
              ElementsAre("MissingCompanionError m.weight: weight_scale is missing beside weight_scale_2"));
  EXPECT_THAT(Missing({{"weight", DType::kF8E4M3, {8, 16}}, {"input_scale", DType::kF32, {}}}),
              ElementsAre("MissingCompanionError m.weight: weight_scale is missing: the weight is quantized"));
}

TEST(RecognizeTest, ReportsAMissingSecondScaleOfNvfp4) {
  EXPECT_THAT(Missing({{"weight", DType::kU8, {8, 16}}, {"weight_scale", DType::kF8E4M3, {8, 2}}}),
              ElementsAre("MissingCompanionError m.weight: weight_scale_2 is missing: NVFP4 block scales are relative "
                          "to it"));
}

TEST(RecognizeTest, ReportsPackedBytesWithoutScalesOnlyInAQuantizedCheckpoint) {
  for (const DType dtype : {DType::kU8, DType::kF8E4M3}) {
    EXPECT_THAT(Missing({{"weight", dtype, {8, 16}}}, true),
                ElementsAre("MissingCompanionError m.weight: weight_scale is missing: the weight is quantized"));
    EXPECT_THAT(Missing({{"weight", dtype, {8, 16}}}, false), IsEmpty());
  }
  EXPECT_THAT(Missing({{"weight", DType::kBF16, {8, 16}}}, true), IsEmpty());
}

TEST(RecognizeTest, ReportsWhatPackedFormatsLack) {
  const std::string m = "MissingCompanionError m.weight: ";
  EXPECT_THAT(Missing({{"weight_packed", DType::kI32, {8, 4}}}),
              ElementsAre(m + "weight_scale is missing beside weight_packed"));
  EXPECT_THAT(Missing({{"weight_packed", DType::kU8, {8, 16}}, {"weight_scale", DType::kF8E4M3, {8, 2}}}),
              ElementsAre(m + "weight_global_scale is missing: NVFP4 block scales are relative to it"));
  EXPECT_THAT(Missing({{"qweight", DType::kI32, {4, 8}}, {"qzeros", DType::kI32, {1, 1}}}),
              ElementsAre(m + "scales is missing beside qweight"));
  EXPECT_THAT(Missing({{"weight", DType::kU8, {64, 1}}, {"weight.absmax", DType::kF32, {2}}}),
              ElementsAre(m + "weight.quant_state is missing: nothing else states the weight's shape"));
  EXPECT_THAT(Missing({{"weight", DType::kU8, {64, 1}}, {"weight.quant_state.bitsandbytes__nf4", DType::kU8, {9}}}),
              ElementsAre(m + "weight.absmax is missing beside weight.quant_state"));
  EXPECT_THAT(Missing({{"weight", DType::kI8, {8, 16}}, {"weight_format", DType::kU8, {}}}),
              ElementsAre(m + "SCB is missing beside weight_format"));
}

TEST(RecognizeTest, ReportsEveryIncompleteWeight) {
  Store store;
  store.Add("a.weight_scale", DType::kF32, {});
  store.Add("b.weight", DType::kU8, {8, 16});
  store.Add("b.weight_scale", DType::kF8E4M3, {8, 2});
  store.Add("c.weight", DType::kBF16, {8, 16});
  const auto units = RecognizeUnits(store.table, {});
  ASSERT_FALSE(units.ok());
  ASSERT_EQ(units.errors().size(), 2u);
  EXPECT_EQ(units.errors()[0].ToString(),
            "a.weight: weight_scale is stored without its weight (the export is incomplete; a server would load it and "
            "compute nonsense)");
  EXPECT_EQ(units.errors()[1].tensor, "b.weight");
}

TEST(RecognizeTest, RefusesTwoValuesForOneLinear) {
  EXPECT_THAT(Missing({{"weight", DType::kBF16, {8, 16}}, {"weight_packed", DType::kI32, {8, 2}}}),
              ElementsAre("NameCollisionError m.weight: both weight and weight_packed are stored for one linear"));
}

// ---- names ------------------------------------------------------------------------------------------------------

TEST(RecognizeTest, LeavesAModelsOwnParametersAlone) {
  Store store;
  const std::vector<std::string> names = {"encoder.scales",      "encoder.g_idx", "attn.q_bias", "attn.v_bias",
                                          "attn.output_scale",   "logit_scale",   "cls_token",   "experts.gate_up_proj",
                                          "block.weight_format", "x.SCB"};
  for (const std::string& name : names) store.Add(name, DType::kF32, {4});
  EXPECT_EQ(Keys(store.table), names);
  const auto units = RecognizeUnits(store.table, {});
  for (const WeightUnit& unit : *units) {
    EXPECT_EQ(unit.role, UnitRole::kValue) << unit.key;
    EXPECT_THAT(Leaves(unit), ElementsAre(""));
  }
}

TEST(RecognizeTest, TakesGenericNamesForCompanionsBesideAValue) {
  const WeightUnit unit = OnlyUnit({{"qweight", DType::kI32, {4, 8}}, {"scales", DType::kF16, {1, 8}}});
  EXPECT_THAT(Leaves(unit), ElementsAre("qweight", "scales"));
}

TEST(RecognizeTest, GivesCacheScalesAndBiasesUnitsThatFollowTheirWeight) {
  Store store;
  store.Add("attn.k_proj.weight", DType::kBF16, {4, 4});
  store.Add("attn.k_proj.bias", DType::kBF16, {4});
  store.Add("attn.k_proj.k_scale", DType::kF32, {});
  store.Add("attn.v_scale", DType::kF32, {});
  store.Add("attn.v_proj.v_bias", DType::kF32, {});
  const auto units = RecognizeUnits(store.table, {});
  ASSERT_TRUE(units.ok());
  ASSERT_EQ(units->size(), 5u);
  const std::vector<WeightUnit>& u = *units;
  EXPECT_EQ(u[0].role, UnitRole::kValue);
  EXPECT_EQ(u[1].role, UnitRole::kBias);
  EXPECT_EQ(u[1].key, "attn.k_proj.bias");
  EXPECT_EQ(u[1].owner, "attn.k_proj.weight");
  EXPECT_EQ(u[2].role, UnitRole::kCacheScale);
  EXPECT_EQ(u[2].owner, "attn.k_proj.weight");
  EXPECT_THAT(Leaves(u[2]), ElementsAre("k_scale"));
  EXPECT_EQ(u[3].role, UnitRole::kCacheScale);
  EXPECT_EQ(u[3].owner, "attn.weight");
  EXPECT_EQ(u[4].role, UnitRole::kCacheScale);
}

TEST(RecognizeTest, JoinsCompanionsToParametersThatAreNotCalledWeight) {
  Store store;
  store.Add("experts.down_proj", DType::kF8E4M3, {2, 8, 8});
  store.Add("experts.down_proj_scale_inv", DType::kF32, {2, 1, 1});
  store.Add("experts.down_proj_bias", DType::kBF16, {2, 8});
  store.Add("experts.up_proj_scale", DType::kF32, {2});
  const auto units = RecognizeUnits(store.table, {});
  ASSERT_TRUE(units.ok());
  ASSERT_EQ(units->size(), 3u);
  EXPECT_THAT(Leaves((*units)[0]), ElementsAre("", "weight_scale_inv"));
  EXPECT_EQ((*units)[1].role, UnitRole::kBias);
  EXPECT_EQ((*units)[1].owner, "experts.down_proj");
  EXPECT_EQ((*units)[2].key, "experts.up_proj_scale");
}

TEST(RecognizeTest, OrdersUnitsByTheirFirstTensor) {
  Store store;
  store.Add("b.weight_scale", DType::kF32, {});
  store.Add("a.weight", DType::kBF16, {2, 2});
  store.Add("b.weight", DType::kF8E4M3, {2, 2});
  EXPECT_THAT(Keys(store.table), ElementsAre("b.weight", "a.weight"));
}

TEST(RecognizeTest, KnowsARootModule) {
  Store store;
  store.Add("weight", DType::kF8E4M3, {2, 2});
  store.Add("weight_scale", DType::kF32, {});
  EXPECT_THAT(Keys(store.table), ElementsAre("weight"));
}

TEST(ValueKeysTest, LeavesOutCompanionsAndDuplicates) {
  EXPECT_THAT(
      ValueKeys({"b.weight", "b.weight_scale", "b.weight_scale_2", "b.input_scale", "b.bias", "a.qweight", "a.scales",
                 "a.g_idx", "a.qzeros", "e.down_proj", "e.down_proj_scale_inv", "k.k_scale", "logit_scale"}),
      ElementsAre("a.weight", "b.bias", "b.weight", "e.down_proj", "logit_scale"));
}

// ---- other names for the same ------------------------------------------------------------------------------------

TEST(LeafSpellingTest, RecognizesACompanionUnderAnotherName) {
  for (const auto& [name, leaf] : {std::pair("scale", "weight_scale_inv"),
                                   {"qscale_weight", "weight_scale_inv"},
                                   {"weight_quantizer.scale", "weight_scale"}}) {
    const WeightUnit unit = OnlyUnit({{"weight", DType::kF8E4M3, {256, 256}}, {name, DType::kF32, {2, 2}}});
    EXPECT_EQ(unit.weight.format, FormatId::kFp8Block) << name;
    EXPECT_THAT(Leaves(unit), ElementsAre("weight", leaf)) << name;
    ASSERT_NE(unit.weight.parts[1].spelling, nullptr) << name;
    EXPECT_EQ(unit.weight.parts[1].spelling->name, name);
  }
}

TEST(LeafSpellingTest, LeavesParametersOfAModelAlone) {
  const std::vector<Row> beside_numbers = {{"weight", DType::kBF16, {8, 8}}, {"scale", DType::kBF16, {8}}};
  EXPECT_THAT(Keys(Module(beside_numbers)), ElementsAre("m.weight", "m.scale"));
  EXPECT_THAT(Keys(Module({{"scale", DType::kF32, {3}}})), ElementsAre("m.scale"));
  EXPECT_THAT(
      Keys(Module(
          {{"weight", DType::kF8E4M3, {8, 8}}, {"weight_scale_inv", DType::kF32, {}}, {"scale", DType::kBF16, {8}}})),
      ElementsAre("m.weight", "m.scale"));
  const WeightUnit codes = OnlyUnit({{"weight", DType::kI8, {8, 32}}, {"scale", DType::kF8E8M0, {8, 2}}});
  EXPECT_EQ(codes.weight.format, FormatId::kFp4Block);
}

TEST(LeafSpellingTest, IsFoundInAListOfNames) {
  const NamedValues values = FindValues({"a.weight", "a.scale", "b.weight", "b.weight_scale", "c.scale"});
  EXPECT_THAT(values.keys, ElementsAre("a.weight", "b.weight", "c.scale"));
  ASSERT_TRUE(values.leaves.contains("weight_scale_inv"));
  EXPECT_EQ(values.leaves.at("weight_scale_inv")->name, "scale");
  EXPECT_EQ(values.leaves.at("weight_scale"), nullptr);
}

TEST(PartTensorNameTest, JoinsLeavesByStyle) {
  EXPECT_EQ(PartTensorName("m.weight", NameStyle::kModule, "weight_scale"), "m.weight_scale");
  EXPECT_EQ(PartTensorName("weight", NameStyle::kModule, "weight_scale"), "weight_scale");
  EXPECT_EQ(PartTensorName("e.down_proj", NameStyle::kParameter, ""), "e.down_proj");
  EXPECT_EQ(PartTensorName("e.down_proj", NameStyle::kParameter, "weight_scale"), "e.down_proj_weight_scale");
}

}  // namespace
}  // namespace quantport
