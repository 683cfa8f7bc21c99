#include "layout/reorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/error_lines.h"
#include "unit/linears.h"

namespace quantport {
namespace {

using test::Dense;
using test::ErrorLines;
using test::LinearStore;
using test::Shape;
using testing::ElementsAre;
using testing::HasSubstr;

// Where each element along `dim` of the result comes from when stretches of rows x columns are transposed.
Dense DenseTransposeStretches(const Dense& array, size_t dim, uint64_t rows, uint64_t columns) {
  return test::MakeDense(array.shape, [&](std::vector<uint64_t> index) {
    const uint64_t stretch = index[dim] / (rows * columns);
    const uint64_t within = index[dim] % (rows * columns);
    index[dim] = stretch * rows * columns + within % rows * columns + within / rows;
    return array.At(index);
  });
}

LogicalWeight Must(Result<LogicalWeight> result) {
  if (!result) {
    ADD_FAILURE() << result.errors()[0].ToString();
    return {};
  }
  return std::move(*result);
}

void ExpectValues(const LinearStore& store, const LogicalWeight& weight, const std::string& leaf, const Dense& dense) {
  EXPECT_EQ(LinearStore::PartArray(weight, leaf).shape, dense.shape) << leaf;
  EXPECT_EQ(store.Part(weight, leaf).values, dense.values) << leaf;
}

// ---- stretches ----------------------------------------------------------------------------------------------------

TEST(TransposeStretchesTest, RefusesBlocksThatShareSeveralElementsAmongRows) {
  LinearStore store;
  LogicalWeight weight = store.Fp8("w", {8, 4}, {8, 1});
  // 4 rows share 3 scales, and which row has which is not known.
  weight.parts[1].axes = {Axis{0, 4, 3}, std::nullopt};
  EXPECT_THAT(ErrorLines(TransposeStretches(weight, 0, 2, 2)), ElementsAre(HasSubstr("would have to change blocks")));
}

TEST(TransposeStretchesTest, ATensorWithoutElementsCostsNothing) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("w", {uint64_t{1} << 22, 0});
  const LogicalWeight out = Must(TransposeStretches(weight, 0, 2, uint64_t{1} << 21));
  EXPECT_EQ(out.parts.at(0).array.blocks.size(), 1u);
  const LogicalWeight larger = store.Plain("x", {uint64_t{1} << 40, 0});
  EXPECT_THAT(ErrorLines(TransposeStretches(larger, 0, 2, uint64_t{1} << 39)),
              ElementsAre(HasSubstr("more than any weight has")));
}

TEST(UnflattenWeightTest, RefusesSizesWhoseProductOverflows) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("w", {2, 8});
  const std::vector<uint64_t> sizes = {uint64_t{1} << 63, 2, 1, 8};
  EXPECT_FALSE(UnflattenWeight(weight, sizes).ok());
  // 2^65 + 8
  const std::vector<uint64_t> wraps = {(uint64_t{1} << 33) + 2, uint64_t{1} << 31, 4, 1};
  EXPECT_FALSE(UnflattenWeight(weight, wraps).ok());
}

TEST(PadRowsTest, RefusesMoreZerosThanRows) {
  LinearStore store;
  EXPECT_THAT(ErrorLines(PadRows(store.Plain("w", {8, 2}), uint64_t{1} << 40)),
              ElementsAre(HasSubstr("more zeros than rows")));
}

TEST(TransposeWeightTest, ADimensionOfOneChangesPlacesWithTheOneThatIsMoved) {
  LinearStore store;
  const LogicalWeight weight = store.Fp8("e", {3, 8, 4}, {3, 8, 1});
  const LogicalWeight out = Must(TransposeWeight(weight, 1, 2));
  EXPECT_THAT(LinearStore::PartArray(out, "weight_scale").shape, ElementsAre(3, 1, 8));
  EXPECT_EQ(store.PartBytes(out, "weight_scale"), store.PartBytes(weight, "weight_scale"));
  store.ExpectSame(Must(TransposeWeight(out, 1, 2)), weight);
}

TEST(TransposeStretchesTest, InterleavingPutsTheHalvesRowByRow) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("w", {6, 2});
  const Dense rows = store.Elements(0);
  const LogicalWeight out = Must(TransposeStretches(weight, 0, 2, 3));
  std::vector<uint64_t> want;
  for (const uint64_t row : {0, 3, 1, 4, 2, 5}) {
    want.push_back(rows.At({row, 0}));
    want.push_back(rows.At({row, 1}));
  }
  EXPECT_EQ(store.Part(out, "weight").values, want);
  EXPECT_EQ(out.shape, weight.shape);
}

TEST(TransposeStretchesTest, TheInverseGivesTheWeightBack) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("w", {2, 12, 3});
  for (const auto& [rows, columns] :
       std::vector<std::pair<uint64_t, uint64_t>>{{2, 6}, {6, 2}, {3, 2}, {1, 4}, {4, 1}}) {
    const LogicalWeight there = Must(TransposeStretches(weight, 1, rows, columns));
    ExpectValues(store, there, "weight", DenseTransposeStretches(store.Elements(0), 1, rows, columns));
    store.ExpectSame(Must(TransposeStretches(there, 1, columns, rows)), weight);
  }
}

TEST(TransposeStretchesTest, RopeMovesTheRowsOfEveryHeadByThemselves) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("q_proj", {12, 4});  // 3 heads of 4
  const LogicalWeight out = Must(TransposeStretches(weight, 0, 2, 2));
  // view(heads, half, 2, in).transpose(1, 2), as transformers does it
  const Dense heads = test::DenseSplit(test::DenseSplit(store.Elements(0), 0, 4), 1, 2);
  const Dense want = test::DenseSwap(heads, 1, 2);
  EXPECT_EQ(store.Part(out, "weight").values, want.values);
}

TEST(TransposeStretchesTest, PackedRowsOfNvfp4MoveWithTheirScales) {
  LinearStore store;
  const LogicalWeight weight = store.Nvfp4("w", 8, 32);
  const LogicalWeight out = Must(TransposeStretches(weight, 0, 4, 2));
  EXPECT_EQ(out.format, FormatId::kNvfp4);
  ExpectValues(store, out, "weight", DenseTransposeStretches(store.Elements(0), 0, 4, 2));
  ExpectValues(store, out, "weight_scale", DenseTransposeStretches(store.Elements(1), 0, 4, 2));
  EXPECT_EQ(store.PartBytes(out, "weight_scale_2"), store.bytes[2]);
  EXPECT_EQ(store.PartBytes(out, "input_scale"), store.bytes[3]);
  store.ExpectSame(Must(TransposeStretches(out, 0, 2, 4)), weight);
}

TEST(TransposeStretchesTest, PackedColumnsOfNvfp4AreRefused) {
  LinearStore store;
  EXPECT_THAT(ErrorLines(TransposeStretches(store.Nvfp4("w", 8, 32), 1, 2, 16)),
              ElementsAre("QuantConversionUnsupportedError rows move within stretches of 32, and weight stores one "
                          "element for 2 rows: they would have to change blocks"));
}

TEST(TransposeStretchesTest, StretchesWithinATileStayWithTheirScale) {
  LinearStore store;
  const LogicalWeight weight = store.Fp8("w", {512, 128}, {4, 1}, "weight_scale_inv");
  const LogicalWeight out = Must(TransposeStretches(weight, 0, 2, 32));
  ExpectValues(store, out, "weight", DenseTransposeStretches(store.Elements(0), 0, 2, 32));
  EXPECT_EQ(store.PartBytes(out, "weight_scale_inv"), store.bytes[1]);
  store.ExpectSame(Must(TransposeStretches(out, 0, 32, 2)), weight);
}

TEST(TransposeStretchesTest, ATileLargerThanTheWeightStays) {
  LinearStore store;
  const LogicalWeight weight = store.Fp8("w", {96, 128}, {1, 1}, "weight_scale_inv");
  const LogicalWeight out = Must(TransposeStretches(weight, 0, 2, 48));
  ExpectValues(store, out, "weight", DenseTransposeStretches(store.Elements(0), 0, 2, 48));
  EXPECT_EQ(store.PartBytes(out, "weight_scale_inv"), store.bytes[1]);
}

TEST(TransposeStretchesTest, StretchesThatTilesCutAreRefusedWithTheReason) {
  LinearStore store;
  const LogicalWeight tiles = store.Fp8("w", {512, 128}, {4, 1}, "weight_scale_inv");
  for (const auto& [rows, columns] : std::vector<std::pair<uint64_t, uint64_t>>{{2, 256}, {2, 128}}) {
    EXPECT_THAT(ErrorLines(TransposeStretches(tiles, 0, rows, columns)),
                ElementsAre(fmt::format("QuantConversionUnsupportedError rows move within stretches of {}, and "
                                        "weight_scale_inv stores one element for 128 rows: they would have to change "
                                        "blocks",
                                        rows * columns)));
  }
  // Stretches of 96 do not fall between tiles of 128.
  EXPECT_FALSE(TransposeStretches(store.Fp8("v", {384, 128}, {3, 1}, "weight_scale_inv"), 0, 2, 48).ok());
}

TEST(TransposeStretchesTest, ScalesOfRowsMoveAndScalarsStay) {
  LinearStore store;
  const LogicalWeight channel = store.Fp8("c", {8, 4}, {8, 1});
  const LogicalWeight out = Must(TransposeStretches(channel, 0, 2, 4));
  ExpectValues(store, out, "weight_scale", DenseTransposeStretches(store.Elements(1), 0, 2, 4));
  const LogicalWeight tensor = store.Fp8("t", {8, 4}, {});
  EXPECT_EQ(store.PartBytes(Must(TransposeStretches(tensor, 0, 2, 4)), "weight_scale"), store.bytes[3]);
}

TEST(TransposeStretchesTest, RefusesSizesThatDoNotDivideAndDimensionsThatAreNotThere) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("w", {6, 4});
  EXPECT_THAT(ErrorLines(TransposeStretches(weight, 0, 2, 2)),
              ElementsAre(HasSubstr("a dimension of 6 does not divide into stretches of 2 x 2")));
  EXPECT_THAT(ErrorLines(TransposeStretches(weight, 0, 2, 0)), ElementsAre(HasSubstr("stretches of 2 x 0")));
  EXPECT_THAT(ErrorLines(TransposeStretches(weight, 2, 2, 2)),
              ElementsAre(HasSubstr("dimension 2 of a weight with 2")));
}

TEST(TransposeStretchesTest, RefusesFormatsWithoutARow) {
  LogicalWeight unknown;
  unknown.format = FormatId::kUnrecognized;
  unknown.shape = {4, 4};
  EXPECT_THAT(ErrorLines(TransposeStretches(unknown, 0, 2, 2)), ElementsAre(HasSubstr("no format has these tensors")));
  EXPECT_FALSE(TransposeWeight(unknown, 0, 1).ok());
  EXPECT_FALSE(FlattenWeight(unknown).ok());
  EXPECT_FALSE(UnflattenWeight(unknown, Shape{2, 2}).ok());
}

// ---- transposition ------------------------------------------------------------------------------------------------

TEST(TransposeWeightTest, StackedNvfp4BecomesTheFormThatPacksAlongTheMiddle) {
  LinearStore store;
  const LogicalWeight weight = store.StackedNvfp4("down_proj", 3, 8, 64);
  const LogicalWeight out = Must(TransposeWeight(weight, 1, 2));
  EXPECT_THAT(out.shape, ElementsAre(3, 64, 8));
  ExpectValues(store, out, "weight", test::DenseSwap(store.Elements(0), 1, 2));        // [E, in/2, out]
  ExpectValues(store, out, "weight_scale", test::DenseSwap(store.Elements(1), 1, 2));  // [E, in/16, out]
  EXPECT_EQ(store.PartBytes(out, "weight_scale_2"), store.bytes[2]);
  store.ExpectSame(Must(TransposeWeight(out, 1, 2)), weight);
}

TEST(TransposeWeightTest, WhatWasTransposedIsRecognizedAsItIs) {
  LinearStore store;
  const LogicalWeight out = Must(TransposeWeight(store.StackedNvfp4("a", 2, 32, 64), 1, 2));
  LinearStore written;
  written.Add("b", DType::kU8, out.parts[0].array.shape);
  written.Add("b_weight_scale", DType::kF8E4M3, out.Find("weight_scale")->array.shape);
  written.Add("b_weight_scale_2", DType::kF32, {2});
  written.Add("b_input_scale", DType::kF32, {2});
  const LogicalWeight again = written.Weight("b");
  EXPECT_EQ(again.format, FormatId::kNvfp4);
  EXPECT_EQ(again.shape, out.shape);
  for (size_t dim = 0; dim < 3; ++dim) {
    EXPECT_EQ(again.parts[0].axes[dim]->granularity, out.parts[0].axes[dim]->granularity) << dim;
    EXPECT_EQ(again.Find("weight_scale")->axes[dim]->granularity, out.Find("weight_scale")->axes[dim]->granularity);
  }
}

TEST(TransposeWeightTest, CutsOfATransposedWeightFallBetweenItsBlocks) {
  LinearStore store;
  const LogicalWeight out = Must(TransposeWeight(store.StackedNvfp4("g", 2, 8, 64), 1, 2));
  const LogicalWeight half = Must(Chunk(out, 1, 2, 1));
  ExpectValues(store, half, "weight", test::DenseSlice(test::DenseSwap(store.Elements(0), 1, 2), 1, 16, 16));
  ExpectValues(store, half, "weight_scale", test::DenseSlice(test::DenseSwap(store.Elements(1), 1, 2), 1, 2, 2));
}

TEST(TransposeWeightTest, ALinearOfNvfp4IsRefusedWithTheReason) {
  LinearStore store;
  EXPECT_THAT(ErrorLines(TransposeWeight(store.Nvfp4("w", 32, 32), 0, 1)),
              ElementsAre("QuantConversionUnsupportedError weight follows the rows of the weight, and no format stores "
                          "it along the columns: the weight would have to be quantized again"));
}

TEST(TransposeWeightTest, ALinearOfFp8IsTransposedWhereItsScalesAllowIt) {
  LinearStore store;
  const LogicalWeight tensor = store.Fp8("t", {6, 4}, {});
  const LogicalWeight out = Must(TransposeWeight(tensor, 0, 1));
  EXPECT_THAT(out.shape, ElementsAre(4, 6));
  ExpectValues(store, out, "weight", test::DenseSwap(store.Elements(0), 0, 1));
  EXPECT_EQ(store.PartBytes(out, "weight_scale"), store.bytes[1]);

  const LogicalWeight tiles = store.Fp8("b", {256, 384}, {2, 3}, "weight_scale_inv");
  const LogicalWeight swapped = Must(TransposeWeight(tiles, 0, 1));
  ExpectValues(store, swapped, "weight", test::DenseSwap(store.Elements(2), 0, 1));
  ExpectValues(store, swapped, "weight_scale_inv", test::DenseSwap(store.Elements(3), 0, 1));

  EXPECT_THAT(ErrorLines(TransposeWeight(store.Fp8("c", {6, 4}, {6, 1}), 0, 1)),
              ElementsAre(HasSubstr("weight_scale follows the rows of the weight")));
}

TEST(TransposeWeightTest, RefusesDimensionsThatAreNotThere) {
  LinearStore store;
  EXPECT_THAT(ErrorLines(TransposeWeight(store.Plain("w", {4}), 0, 1)),
              ElementsAre(HasSubstr("dimensions 0 and 1 of a weight with 1")));
}

// ---- convolutions -------------------------------------------------------------------------------------------------

TEST(FlattenWeightTest, KeepsTheBytesAndTheInverseGivesTheShapeBack) {
  LinearStore store;
  const LogicalWeight conv = store.Plain("proj", {4, 3, 2, 5, 5});
  const LogicalWeight flat = Must(FlattenWeight(conv));
  EXPECT_THAT(flat.shape, ElementsAre(4, 150));
  EXPECT_THAT(flat.parts[0].array.shape, ElementsAre(4, 150));
  EXPECT_EQ(store.PartBytes(flat, "weight"), store.bytes[0]);
  const LogicalWeight back = Must(UnflattenWeight(flat, Shape{3, 2, 5, 5}));
  store.ExpectSame(back, conv);
}

TEST(FlattenWeightTest, RowScalesAndScalarsOfAConvolutionStay) {
  LinearStore store;
  const LogicalWeight conv = store.Fp8("proj", {4, 3, 2, 2, 2}, {});
  const LogicalWeight flat = Must(FlattenWeight(conv));
  EXPECT_EQ(store.PartBytes(flat, "weight"), store.bytes[0]);
  EXPECT_EQ(store.PartBytes(flat, "weight_scale"), store.bytes[1]);
  EXPECT_EQ(flat.parts[1].axes.size(), 2u);
  store.ExpectSame(Must(UnflattenWeight(flat, Shape{3, 2, 2, 2})), conv);
}

TEST(UnflattenWeightTest, RefusesSizesThatAreNotTheRows) {
  LinearStore store;
  const LogicalWeight flat = store.Plain("w", {4, 12});
  EXPECT_THAT(ErrorLines(UnflattenWeight(flat, Shape{3, 5})),
              ElementsAre("QuantConversionUnsupportedError a weight of shape [4, 12] can't be the convolution "
                          "[4, 3, 5]"));
  EXPECT_FALSE(UnflattenWeight(flat, Shape{3, 0, 4}).ok());
  EXPECT_FALSE(UnflattenWeight(store.Plain("v", {12}), Shape{12}).ok());
}

TEST(UnflattenWeightTest, RefusesPackedRows) {
  LinearStore store;
  EXPECT_THAT(ErrorLines(UnflattenWeight(store.Nvfp4("w", 4, 32), Shape{2, 16})),
              ElementsAre("QuantConversionUnsupportedError weight is stored in blocks that no convolution's weight can "
                          "have"));
}

}  // namespace
}  // namespace quantport
