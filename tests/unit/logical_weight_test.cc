#include "layout/logical_weight.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "layout/recognize.h"
#include "layout/shared_scales.h"
#include "unit/dense.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using test::Store;
using testing::ElementsAre;
using testing::IsEmpty;

using Shape = std::vector<uint64_t>;

// Stored linears by their formats' own shapes, recognized as a user's file would be.
struct Linears : Store {
  LogicalWeight Weight(const std::string& key) const {
    const auto units = RecognizeUnits(table, {});
    EXPECT_TRUE(units.ok());
    for (const WeightUnit& unit : *units) {
      if (unit.key == key) return unit.weight;
    }
    ADD_FAILURE() << key << " was not recognized";
    return {};
  }

  LogicalWeight Plain(const std::string& name, const Shape& shape) {
    Add(name + ".weight", DType::kBF16, shape);
    return Weight(name + ".weight");
  }

  LogicalWeight Nvfp4(const std::string& name, uint64_t out, uint64_t in, const Shape& scalar = {}) {
    Add(name + ".weight", DType::kU8, {out, in / 2});
    Add(name + ".weight_scale", DType::kF8E4M3, {out, in / 16});
    Add(name + ".weight_scale_2", DType::kF32, scalar);
    Add(name + ".input_scale", DType::kF32, scalar);
    return Weight(name + ".weight");
  }

  // Experts in one tensor; ModelOpt's batched ones pack along the last but one dimension, [E, in/2, out].
  LogicalWeight StackedNvfp4(const std::string& name, const Shape& logical, bool packs_last, const Shape& scalar) {
    Shape value = logical;
    Shape scale = logical;
    value[packs_last ? 2 : 1] /= 2;
    scale[packs_last ? 2 : 1] /= 16;
    Add(name, DType::kU8, value);
    Add(name + "_weight_scale", DType::kF8E4M3, scale);
    Add(name + "_weight_scale_2", DType::kF32, scalar);
    Add(name + "_input_scale", DType::kF32, scalar);
    return Weight(name);
  }

  LogicalWeight Fp8(const std::string& name, uint64_t out, uint64_t in, const Shape& scale,
                    const std::string& leaf = "weight_scale") {
    Add(name + ".weight", DType::kF8E4M3, {out, in});
    Add(name + "." + leaf, DType::kF32, scale);
    return Weight(name + ".weight");
  }

  std::string PartBytes(const LogicalWeight& weight, const std::string& leaf) const {
    const StoredPart* part = weight.Find(leaf);
    EXPECT_NE(part, nullptr) << leaf;
    return part == nullptr ? std::string() : Bytes(part->array);
  }

  // The same parts with the same shapes and bytes.
  void ExpectSame(const LogicalWeight& a, const LogicalWeight& b) const {
    EXPECT_EQ(a.format, b.format);
    EXPECT_EQ(a.shape, b.shape);
    ASSERT_EQ(a.parts.size(), b.parts.size());
    for (size_t i = 0; i < a.parts.size(); ++i) {
      EXPECT_EQ(a.parts[i].leaf, b.parts[i].leaf);
      EXPECT_EQ(a.parts[i].array.shape, b.parts[i].array.shape) << a.parts[i].leaf;
      EXPECT_EQ(Bytes(a.parts[i].array), Bytes(b.parts[i].array)) << a.parts[i].leaf;
    }
  }

  // Chunks, puts the chunks together again, and expects what was there, with equal scalars all along.
  void ExpectRoundTrip(const LogicalWeight& weight, size_t dim, uint64_t count) const {
    std::vector<LogicalWeight> parts;
    for (uint64_t i = 0; i < count; ++i) {
      auto part = Chunk(weight, dim, count, i);
      ASSERT_TRUE(part.ok()) << part.errors()[0].ToString();
      parts.push_back(std::move(*part));
    }
    SharedScales shared;
    const auto joined = ConcatenateWeights(parts, dim, &shared);
    ASSERT_TRUE(joined.ok()) << joined.errors()[0].ToString();
    ExpectSame(*joined, weight);
    for (const EqualBytes& check : shared.checks) EXPECT_EQ(Bytes(check.a), Bytes(check.b)) << check.leaf;
  }
};

Shape PartShape(const LogicalWeight& weight, const std::string& leaf) { return weight.Find(leaf)->array.shape; }

// ---- chunks -----------------------------------------------------------------------------------------------------

TEST(ChunkTest, SplitsNvfp4RowsWithTheirScalesAndKeepsScalarsZeroDimensional) {
  Linears linears;
  const LogicalWeight fused = linears.Nvfp4("gate_up_proj", 8, 32);
  const auto up = Chunk(fused, 0, 2, 1);
  ASSERT_TRUE(up.ok());
  EXPECT_THAT(up->shape, ElementsAre(4, 32));
  EXPECT_THAT(PartShape(*up, "weight"), ElementsAre(4, 16));
  EXPECT_THAT(PartShape(*up, "weight_scale"), ElementsAre(4, 2));
  EXPECT_THAT(PartShape(*up, "weight_scale_2"), IsEmpty());
  EXPECT_EQ(linears.PartBytes(*up, "weight"), linears.bytes[0].substr(64));
  EXPECT_EQ(linears.PartBytes(*up, "weight_scale"), linears.bytes[1].substr(8));
  EXPECT_EQ(linears.PartBytes(*up, "weight_scale_2"), linears.bytes[2]);
  EXPECT_EQ(linears.PartBytes(*up, "input_scale"), linears.bytes[3]);
}

TEST(ChunkTest, KeepsAScalarOfOneElementOneDimensional) {
  Linears linears;
  const auto part = Chunk(linears.Nvfp4("l", 4, 32, {1}), 0, 2, 0);
  ASSERT_TRUE(part.ok());
  EXPECT_THAT(PartShape(*part, "weight_scale_2"), ElementsAre(1));
  EXPECT_THAT(PartShape(*part, "input_scale"), ElementsAre(1));
}

TEST(ChunkTest, SplitsNvfp4ColumnsBetweenBlocksOfSixteen) {
  Linears linears;
  const LogicalWeight weight = linears.Nvfp4("l", 3, 64);
  const auto part = Chunk(weight, 1, 2, 1);
  ASSERT_TRUE(part.ok());
  EXPECT_EQ(linears.PartBytes(*part, "weight"), test::DenseSlice(linears.Elements(0), 1, 16, 16).ToBytes(8));
  EXPECT_EQ(linears.PartBytes(*part, "weight_scale"), test::DenseSlice(linears.Elements(1), 1, 2, 2).ToBytes(8));
  linears.ExpectRoundTrip(weight, 1, 4);
}

TEST(ChunkTest, RefusesToCutInsideANvfp4Block) {
  Linears linears;
  EXPECT_THAT(ErrorLines(Chunk(linears.Nvfp4("l", 3, 48), 1, 2, 0)),
              ElementsAre("QuantConversionUnsupportedError the cut at 24 falls inside a block of 16 that shares one "
                          "element of weight_scale"));
  EXPECT_THAT(ErrorLines(Chunk(linears.Nvfp4("m", 3, 48), 1, 2, 1)),
              ElementsAre("QuantConversionUnsupportedError the cut at 24 falls inside a block of 16 that shares one "
                          "element of weight_scale"));
}

TEST(ChunkTest, SplitsStackedExpertsHoweverTheyArePacked) {
  for (const bool packs_last : {true, false}) {
    for (const Shape& scalar : {Shape{}, Shape{1}, Shape{2}, Shape{2, 1}}) {
      Linears linears;
      const Shape logical = packs_last ? Shape{2, 8, 32} : Shape{2, 32, 8};
      const size_t out = packs_last ? 1 : 2;
      const LogicalWeight weight = linears.StackedNvfp4("experts.gate_up_proj", logical, packs_last, scalar);
      EXPECT_EQ(weight.shape, logical);
      const auto part = Chunk(weight, out, 2, 1);
      ASSERT_TRUE(part.ok());
      EXPECT_EQ(linears.PartBytes(*part, ""), test::DenseSlice(linears.Elements(0), out, 4, 4).ToBytes(8));
      EXPECT_EQ(linears.PartBytes(*part, "weight_scale"), test::DenseSlice(linears.Elements(1), out, 4, 4).ToBytes(8));
      EXPECT_EQ(PartShape(*part, "weight_scale_2"), scalar);
      linears.ExpectRoundTrip(weight, out, 4);
      linears.ExpectRoundTrip(weight, 3 - out, 2);
    }
  }
}

TEST(ChunkTest, SplitsFp8WithScalesOfEachGranularity) {
  Linears linears;
  const LogicalWeight tensor = linears.Fp8("t", 8, 6, {});
  const LogicalWeight channel = linears.Fp8("c", 8, 6, {8});
  const LogicalWeight column = linears.Fp8("k", 8, 6, {8, 1});
  const auto of_tensor = Chunk(tensor, 0, 2, 1);
  const auto of_channel = Chunk(channel, 0, 2, 1);
  const auto of_column = Chunk(column, 0, 2, 1);
  ASSERT_TRUE(of_tensor.ok() && of_channel.ok() && of_column.ok());
  EXPECT_THAT(PartShape(*of_tensor, "weight_scale"), IsEmpty());
  EXPECT_THAT(PartShape(*of_channel, "weight_scale"), ElementsAre(4));
  EXPECT_THAT(PartShape(*of_column, "weight_scale"), ElementsAre(4, 1));
  EXPECT_EQ(linears.PartBytes(*of_tensor, "weight_scale"), linears.bytes[1]);
  EXPECT_EQ(linears.PartBytes(*of_channel, "weight_scale"), linears.bytes[3].substr(16));
  EXPECT_EQ(linears.PartBytes(*of_column, "weight_scale"), linears.bytes[5].substr(16));
  // Columns share their rows' scales.
  const auto columns = Chunk(channel, 1, 2, 1);
  ASSERT_TRUE(columns.ok());
  EXPECT_EQ(linears.PartBytes(*columns, "weight_scale"), linears.bytes[3]);
  EXPECT_EQ(linears.PartBytes(*columns, "weight"), test::DenseSlice(linears.Elements(2), 1, 3, 3).ToBytes(8));
}

TEST(ChunkTest, SplitsFp8BlocksBetweenTiles) {
  Linears linears;
  // 200 columns: the second tile of each row is a partial one.
  const LogicalWeight flat = linears.Fp8("a", 512, 200, {4, 2}, "weight_scale_inv");
  const LogicalWeight modelopt = linears.Fp8("b", 512, 200, {4, 1, 2, 1});
  const auto of_flat = Chunk(flat, 0, 2, 1);
  const auto of_modelopt = Chunk(modelopt, 0, 2, 1);
  ASSERT_TRUE(of_flat.ok() && of_modelopt.ok());
  EXPECT_THAT(PartShape(*of_flat, "weight_scale_inv"), ElementsAre(2, 2));
  EXPECT_THAT(PartShape(*of_modelopt, "weight_scale"), ElementsAre(2, 1, 2, 1));
  EXPECT_EQ(linears.PartBytes(*of_flat, "weight_scale_inv"), linears.bytes[1].substr(16));
  EXPECT_EQ(linears.PartBytes(*of_modelopt, "weight_scale"), linears.bytes[3].substr(16));
  linears.ExpectRoundTrip(flat, 0, 4);
  linears.ExpectRoundTrip(modelopt, 0, 2);
}

TEST(ChunkTest, RefusesToCutInsideAnFp8Tile) {
  Linears linears;
  EXPECT_THAT(ErrorLines(Chunk(linears.Fp8("a", 384, 128, {3, 1}, "weight_scale_inv"), 0, 2, 0)),
              ElementsAre("QuantConversionUnsupportedError the cut at 192 falls inside a block of 128 that shares one "
                          "element of weight_scale_inv"));
  EXPECT_FALSE(Chunk(linears.Fp8("b", 384, 128, {3, 1, 1, 1}), 0, 2, 1).ok());
}

TEST(ChunkTest, RefusesASizeThatDoesNotDivide) {
  Linears linears;
  EXPECT_THAT(ErrorLines(Chunk(linears.Nvfp4("l", 7, 32), 0, 2, 0)),
              ElementsAre("QuantConversionUnsupportedError a dimension of 7 can't be split into 2 equal parts"));
  EXPECT_THAT(ErrorLines(Chunk(linears.Plain("p", {7, 2}), 0, 3, 0)),
              ElementsAre("QuantConversionUnsupportedError a dimension of 7 can't be split into 3 equal parts"));
}

TEST(ChunkTest, SplitsUnquantizedConvolutionsAsTorchDoes) {
  Linears linears;
  const LogicalWeight conv = linears.Plain("conv", {8, 2, 3});
  // torch.chunk of 8 into 3: 3, 3, 2.
  const auto middle = Chunk(conv, 0, 3, 1);
  const auto last = Chunk(conv, 0, 3, 2);
  ASSERT_TRUE(middle.ok() && last.ok());
  EXPECT_THAT(middle->shape, ElementsAre(3, 2, 3));
  EXPECT_THAT(last->shape, ElementsAre(2, 2, 3));
  EXPECT_EQ(linears.PartBytes(*last, "weight"), linears.bytes[0].substr(72));
  linears.ExpectRoundTrip(conv, 0, 3);
  // torch.chunk of 4 into 3 gives two parts of 2; the third would be missing.
  EXPECT_FALSE(Chunk(linears.Plain("small", {4, 2, 3}), 0, 3, 0).ok());
}

TEST(ChunkTest, RefusesWeightsOfNoLayoutAndDimensionsThatAreNotThere) {
  Linears linears;
  linears.Add("x.weight_packed", DType::kI32, {8, 4});
  linears.Add("x.weight_scale", DType::kBF16, {8, 1});
  const LogicalWeight packed = linears.Weight("x.weight");
  ASSERT_EQ(packed.format, FormatId::kUnrecognized);
  EXPECT_THAT(
      ErrorLines(Chunk(packed, 0, 2, 0)),
      ElementsAre("QuantConversionUnsupportedError Chunk needs to know how this weight is stored, and no format "
                  "has these tensors; the nearest is pack-quantized, but neither weight_shape nor the config "
                  "says how many values a row has"));
  EXPECT_FALSE(Unstack(packed, 0, 0).ok());
  EXPECT_FALSE(StackWeights({packed, packed}, 0).ok());
  EXPECT_THAT(ErrorLines(Chunk(linears.Plain("p", {8}), 1, 2, 0)),
              ElementsAre("QuantConversionUnsupportedError Chunk along dimension 1 of a weight with 1"));
}

// ---- concatenation ----------------------------------------------------------------------------------------------

TEST(ConcatenateTest, AsksForEqualScalarsAndTakesTheFirst) {
  Linears linears;
  const LogicalWeight gate = linears.Nvfp4("gate", 4, 32);
  const LogicalWeight up = linears.Nvfp4("up", 2, 32);
  SharedScales shared;
  const auto fused = ConcatenateWeights({gate, up}, 0, &shared);
  ASSERT_TRUE(fused.ok());
  EXPECT_THAT(fused->shape, ElementsAre(6, 32));
  EXPECT_EQ(linears.PartBytes(*fused, "weight"), linears.bytes[0] + linears.bytes[4]);
  EXPECT_EQ(linears.PartBytes(*fused, "weight_scale"), linears.bytes[1] + linears.bytes[5]);
  EXPECT_EQ(linears.PartBytes(*fused, "weight_scale_2"), linears.bytes[2]);
  ASSERT_EQ(shared.checks.size(), 2u);
  EXPECT_EQ(shared.checks[0].leaf, "weight_scale_2");
  EXPECT_EQ(linears.Bytes(shared.checks[0].a), linears.bytes[2]);
  EXPECT_EQ(linears.Bytes(shared.checks[0].b), linears.bytes[6]);
  EXPECT_EQ(shared.checks[1].leaf, "input_scale");
}

TEST(ConcatenateTest, AsksForEqualRowScalesWhereColumnsAreJoined) {
  Linears linears;
  SharedScales shared;
  const auto joined = ConcatenateWeights({linears.Fp8("a", 8, 6, {8, 1}), linears.Fp8("b", 8, 4, {8, 1})}, 1, &shared);
  ASSERT_TRUE(joined.ok());
  EXPECT_EQ(linears.PartBytes(*joined, "weight"),
            test::DenseConcatenate({linears.Elements(0), linears.Elements(2)}, 1).ToBytes(8));
  ASSERT_EQ(shared.checks.size(), 1u);
  EXPECT_EQ(linears.Bytes(shared.checks[0].b), linears.bytes[3]);
}

TEST(ConcatenateTest, LetsOnlyTheLastPartEndInsideATile) {
  Linears linears;
  const LogicalWeight whole = linears.Fp8("a", 256, 256, {2, 2}, "weight_scale_inv");
  const LogicalWeight partial = linears.Fp8("b", 200, 256, {2, 2}, "weight_scale_inv");
  SharedScales shared;
  const auto joined = ConcatenateWeights({whole, partial}, 0, &shared);
  ASSERT_TRUE(joined.ok());
  EXPECT_THAT(PartShape(*joined, "weight_scale_inv"), ElementsAre(4, 2));
  EXPECT_EQ(linears.PartBytes(*joined, "weight_scale_inv"), linears.bytes[1] + linears.bytes[3]);
  EXPECT_THAT(shared.checks, IsEmpty());
  EXPECT_THAT(ErrorLines(ConcatenateWeights({partial, whole}, 0, &shared)),
              ElementsAre("QuantConversionUnsupportedError a part of 200 rows ends inside a block of 128 of "
                          "weight_scale_inv"));
}

TEST(ConcatenateTest, RefusesDifferentFormats) {
  Linears linears;
  SharedScales shared;
  EXPECT_THAT(ErrorLines(ConcatenateWeights({linears.Nvfp4("a", 4, 32), linears.Plain("b", {4, 32})}, 0, &shared)),
              ElementsAre("QuantConversionUnsupportedError Concatenate of weights in different formats, NVFP4 and "
                          "plain"));
}

TEST(ConcatenateTest, RefusesACompanionThatOnlySomeHave) {
  Linears linears;
  const LogicalWeight with = linears.Fp8("a", 4, 4, {});
  linears.Add("b.weight", DType::kF8E4M3, {4, 4});
  linears.Add("b.weight_scale", DType::kF32, {});
  linears.Add("b.input_scale", DType::kF32, {});
  linears.Add("c.weight", DType::kF8E4M3, {4, 4});
  linears.Add("c.weight_scale_inv", DType::kF32, {});
  SharedScales shared;
  EXPECT_THAT(ErrorLines(ConcatenateWeights({with, linears.Weight("b.weight")}, 0, &shared)),
              ElementsAre("QuantConversionUnsupportedError Concatenate of weights of which some lack a companion "
                          "tensor"));
  EXPECT_THAT(ErrorLines(ConcatenateWeights({with, linears.Weight("c.weight")}, 0, &shared)),
              ElementsAre("QuantConversionUnsupportedError Concatenate of weights of which some lack weight_scale"));
}

TEST(ConcatenateTest, RefusesShapesThatDoNotFit) {
  Linears linears;
  SharedScales shared;
  EXPECT_THAT(ErrorLines(ConcatenateWeights({linears.Plain("a", {4, 6}), linears.Plain("b", {4, 5})}, 0, &shared)),
              ElementsAre("QuantConversionUnsupportedError Concatenate of weights of shapes [4, 6] and [4, 5]"));
  EXPECT_THAT(
      ErrorLines(ConcatenateWeights({linears.Plain("c", {4, 6}), linears.Plain("d", {4, 6, 1})}, 0, &shared)),
      ElementsAre("QuantConversionUnsupportedError Concatenate of weights whose weight differ in dtype or rank"));
  EXPECT_THAT(ErrorLines(ConcatenateWeights({linears.Nvfp4("e", 4, 32), linears.Nvfp4("f", 4, 32, {1})}, 0, &shared)),
              ElementsAre("QuantConversionUnsupportedError Concatenate of weights whose weight_scale_2 differ in "
                          "dtype or rank"));
  EXPECT_FALSE(ConcatenateWeights({linears.Plain("g", {4}), linears.Plain("h", {4})}, 1, &shared).ok());
}

TEST(ConcatenateTest, RefusesDtypesThatDiffer) {
  Linears linears;
  linears.Add("a.weight", DType::kF32, {2, 2});
  SharedScales shared;
  EXPECT_THAT(
      ErrorLines(ConcatenateWeights({linears.Weight("a.weight"), linears.Plain("b", {2, 2})}, 0, &shared)),
      ElementsAre("QuantConversionUnsupportedError Concatenate of weights whose weight differ in dtype or rank"));
}

// A tile scale of one element is no scale of the whole tensor: joined to another it has to become [2, 1].
TEST(ConcatenateTest, KeepsOneScaleForEachTileWhereAPartIsASingleTile) {
  Linears linears;
  const LogicalWeight a = linears.Fp8("a", 128, 128, {1, 1}, "weight_scale_inv");
  const LogicalWeight b = linears.Fp8("b", 128, 128, {1, 1}, "weight_scale_inv");
  SharedScales shared;
  const auto joined = ConcatenateWeights({a, b}, 0, &shared);
  ASSERT_TRUE(joined.ok());
  EXPECT_THAT(PartShape(*joined, "weight_scale_inv"), ElementsAre(2, 1));
}

// ---- experts ----------------------------------------------------------------------------------------------------

TEST(UnstackTest, RemovesTheExpertDimensionAndNothingElse) {
  struct Row {
    Shape stored;
    Shape unstacked;
  };
  for (const Row& row : {Row{{}, {}}, Row{{1}, {1}}, Row{{3}, {}}, Row{{3, 1}, {1}}, Row{{3, 1, 1}, {1, 1}}}) {
    Linears linears;
    const LogicalWeight stacked = linears.StackedNvfp4("experts.down_proj", {3, 4, 32}, true, row.stored);
    const auto expert = Unstack(stacked, 0, 2);
    ASSERT_TRUE(expert.ok());
    EXPECT_EQ(expert->format, FormatId::kNvfp4);
    EXPECT_THAT(expert->shape, ElementsAre(4, 32));
    EXPECT_THAT(PartShape(*expert, ""), ElementsAre(4, 16));
    EXPECT_THAT(PartShape(*expert, "weight_scale"), ElementsAre(4, 2));
    EXPECT_EQ(PartShape(*expert, "weight_scale_2"), row.unstacked);
    EXPECT_EQ(linears.PartBytes(*expert, ""), linears.bytes[0].substr(128));
    EXPECT_EQ(linears.PartBytes(*expert, "weight_scale"), linears.bytes[1].substr(16));
    const bool shared = linears.bytes[2].size() == 4;
    EXPECT_EQ(linears.PartBytes(*expert, "weight_scale_2"), shared ? linears.bytes[2] : linears.bytes[2].substr(8, 4));
  }
}

TEST(UnstackTest, StackingTheExpertsAgainGivesTheSameBytes) {
  for (const bool packs_last : {true, false}) {
    for (const Shape& scalar : {Shape{2}, Shape{2, 1}}) {
      Linears linears;
      const LogicalWeight stacked = linears.StackedNvfp4(
          "experts.gate_up_proj", packs_last ? Shape{2, 8, 32} : Shape{2, 32, 8}, packs_last, scalar);
      std::vector<LogicalWeight> experts;
      for (uint64_t i = 0; i < 2; ++i) {
        auto expert = Unstack(stacked, 0, i);
        ASSERT_TRUE(expert.ok());
        experts.push_back(std::move(*expert));
      }
      const auto again = StackWeights(experts, 0);
      ASSERT_TRUE(again.ok());
      linears.ExpectSame(*again, stacked);
      // The axes are right again as well, or a later cut would go wrong.
      linears.ExpectRoundTrip(*again, packs_last ? 1 : 2, 4);
    }
  }
}

TEST(UnstackTest, AnExpertCanBeCutAfterItWasTakenOut) {
  Linears linears;
  const LogicalWeight stacked = linears.StackedNvfp4("experts.gate_up_proj", {2, 32, 8}, false, {2});
  const auto expert = Unstack(stacked, 0, 1);
  ASSERT_TRUE(expert.ok());
  const auto up = Chunk(*expert, 1, 2, 1);
  ASSERT_TRUE(up.ok());
  EXPECT_EQ(linears.PartBytes(*up, ""),
            test::DenseSlice(test::DenseSelect(linears.Elements(0), 0, 1), 1, 4, 4).ToBytes(8));
  EXPECT_EQ(linears.PartBytes(*up, "weight_scale"),
            test::DenseSlice(test::DenseSelect(linears.Elements(1), 0, 1), 1, 4, 4).ToBytes(8));
}

TEST(StackTest, MakesAVectorOfScalars) {
  Linears linears;
  const std::vector<LogicalWeight> experts = {linears.Nvfp4("e.0", 4, 32), linears.Nvfp4("e.1", 4, 32),
                                              linears.Nvfp4("e.2", 4, 32)};
  const auto stacked = StackWeights(experts, 0);
  ASSERT_TRUE(stacked.ok());
  EXPECT_THAT(stacked->shape, ElementsAre(3, 4, 32));
  EXPECT_THAT(PartShape(*stacked, "weight"), ElementsAre(3, 4, 16));
  EXPECT_THAT(PartShape(*stacked, "weight_scale_2"), ElementsAre(3));
  EXPECT_EQ(linears.PartBytes(*stacked, "weight_scale_2"), linears.bytes[2] + linears.bytes[6] + linears.bytes[10]);
}

TEST(StackTest, RefusesADimensionThatNoWeightHas) {
  Linears linears;
  EXPECT_THAT(ErrorLines(StackWeights({linears.Nvfp4("a", 4, 32)}, 3)),
              ElementsAre("QuantConversionUnsupportedError no new dimension 3 can be put into a weight with 2"));
}

TEST(ConcatenateTest, RefusesGroupsOfDifferentSizes) {
  Linears linears;
  const LogicalWeight rows = linears.Fp8("a", 4, 64, {4, 1});
  LogicalWeight tiled = linears.Fp8("b", 4, 64, {4, 1});
  tiled.parts[1].axes[0]->granularity = 2;
  SharedScales shared;
  EXPECT_THAT(ErrorLines(ConcatenateWeights({rows, tiled}, 0, &shared)),
              ElementsAre("QuantConversionUnsupportedError Concatenate of weights whose weight_scale are of blocks or "
                          "groups of different sizes"));
}

TEST(ConcatenateTest, CodesWithAZeroPointAreNotPutUnderACommonScale) {
  Linears linears;
  std::vector<LogicalWeight> weights;
  for (const std::string name : {"a", "b"}) {
    linears.Add(name + ".weight", DType::kI8, {4, 8});
    linears.Add(name + ".weight_scale", DType::kF32, {});
    linears.Add(name + ".weight_zero_point", DType::kI8, {});
    weights.push_back(linears.Weight(name + ".weight"));
  }
  SharedScales shared;
  shared.merge_max = true;
  ASSERT_TRUE(ConcatenateWeights(weights, 0, &shared).ok());
  EXPECT_TRUE(shared.merges.empty());
  EXPECT_EQ(shared.checks.size(), 2u);
}

TEST(ConcatenateTest, RefusesToMergeScalesTwice) {
  Linears linears;
  SharedScales shared;
  shared.merge_max = true;
  const auto pair = [&](const std::string& name) {
    return ConcatenateWeights({linears.Fp8(name + "0", 4, 8, {}), linears.Fp8(name + "1", 4, 8, {})}, 0, &shared);
  };
  const auto a = pair("a");
  const auto b = pair("b");
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_THAT(ErrorLines(ConcatenateWeights({*a, *b}, 0, &shared)),
              ElementsAre("QuantConversionUnsupportedError weight_scale was merged before: weights are put together "
                          "twice"));
}

TEST(SliceTest, AllOfADimensionIsTheWeightItselfHoweverItIsStored) {
  Linears linears;
  LogicalWeight flat = linears.Fp8("a", 4, 64, {});
  flat.parts[0].axes[1] = Axis{0, 1, 1, "stored as one row"};
  const auto all = SliceWeight(flat, 1, 0, 64);
  ASSERT_TRUE(all.ok());
  EXPECT_THAT(PartShape(*all, "weight"), ElementsAre(4, 64));
}

TEST(StackTest, RefusesExpertsThatDiffer) {
  Linears linears;
  const LogicalWeight a = linears.Nvfp4("a", 4, 32);
  EXPECT_THAT(ErrorLines(StackWeights({a, linears.Nvfp4("b", 8, 32)}, 0)),
              ElementsAre("QuantConversionUnsupportedError MergeModulelist of weights of shapes [4, 32] and [8, 32]"));
  EXPECT_THAT(ErrorLines(StackWeights({a, linears.Fp8("c", 4, 16, {})}, 0)),
              ElementsAre("QuantConversionUnsupportedError MergeModulelist of weights in different formats, NVFP4 and "
                          "FP8"));
}

}  // namespace
}  // namespace quantport
