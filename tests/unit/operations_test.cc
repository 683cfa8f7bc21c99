#include "plan/operations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/error_lines.h"
#include "unit/linears.h"
#include "unit/operation_chains.h"

namespace quantport {
namespace {

using test::Chain;
using test::Dense;
using test::ErrorLines;
using test::ExpectUndone;
using test::Indices;
using test::LinearStore;
using test::Listed;
using test::Must;
using test::Patterns;
using test::Piece;
using test::Shape;
using test::Whole;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

// ---- Chunk and Concatenate ----------------------------------------------------------------------------------------

TEST(OperationsTest, ChunksAreEqualWhereNoShapeIsKnown) {
  LinearStore store;
  Chain load{{"qkv"}, {"q", "k", "v"}};
  const Strands parts = Must(load.Run({{Whole(store.Nvfp4("qkv", 12, 32))}}, {ChunkOp{0, {}}}));
  ASSERT_THAT(parts, SizeIs(3));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(store.PartBytes(parts[i][0].weight, "weight"), store.bytes[0].substr(i * 64, 64));
    EXPECT_EQ(store.PartBytes(parts[i][0].weight, "weight_scale"), store.bytes[1].substr(i * 8, 8));
  }
}

TEST(OperationsTest, ChunksHaveTheReferencesUnequalSizes) {
  LinearStore store;
  Chain save{{"qkv"}, {"q", "k", "v"}, {Shape{8, 32}, Shape{2, 32}, Shape{2, 32}}};
  const Strands parts = Must(save.Run({{Whole(store.Nvfp4("qkv", 12, 32))}}, {ChunkOp{0, {}}}));
  ASSERT_THAT(parts, SizeIs(3));
  EXPECT_EQ(store.PartBytes(parts[0][0].weight, "weight"), store.bytes[0].substr(0, 128));
  EXPECT_EQ(store.PartBytes(parts[1][0].weight, "weight"), store.bytes[0].substr(128, 32));
  EXPECT_EQ(store.PartBytes(parts[2][0].weight, "weight_scale"), store.bytes[1].substr(20, 4));
}

TEST(OperationsTest, SizesThatDoNotAddUpAreNotUsed) {
  LinearStore store;
  Chain save{{"qkv"}, {"q", "k"}, {Shape{8, 32}, Shape{8, 32}}};
  const Strands parts = Must(save.Run({{Whole(store.Nvfp4("qkv", 12, 32))}}, {ChunkOp{0, {}}}));
  EXPECT_THAT(parts[0][0].weight.shape, ElementsAre(6, 32));
}

TEST(OperationsTest, AChunkAlongADimensionThatIsNotThereIsRefusedWithKnownShapesToo) {
  LinearStore store;
  const LogicalWeight bias = store.Plain("norm", {8});
  for (const bool known : {false, true}) {
    Chain save{{"qkv"}, {"q", "k"}};
    if (known) save.shapes = {Shape{4}, Shape{4}};
    EXPECT_THAT(ErrorLines(save.Run({{Whole(bias)}}, {ChunkOp{1, {}}})),
                ElementsAre(HasSubstr("Chunk: Chunk along dimension 1 of a weight with 1")));
  }
}

TEST(OperationsTest, ConcatenatingUndoesChunking) {
  LinearStore store;
  ExpectUndone(store, store.Nvfp4("a", 12, 32), {ChunkOp{0, {}}}, {"qkv"}, {"q", "k", "v"});
  ExpectUndone(store, store.StackedNvfp4("b", 2, 8, 32), {ChunkOp{1, {}}}, {"gate_up"}, {"gate", "up"});
}

TEST(OperationsTest, ChunkOfExpertsStoredOneByOneCutsTheDimensionBefore) {
  LinearStore store;
  Chain save{{"gate_up"}, {"gate", "up"}};
  const Strands parts = Must(save.Run({{Piece(store.Nvfp4("e0", 8, 32), 0, 0, 1)}}, {ChunkOp{1, {}}}));
  ASSERT_THAT(parts, SizeIs(2));
  EXPECT_THAT(parts[1][0].weight.shape, ElementsAre(4, 32));
  EXPECT_EQ(store.PartBytes(parts[1][0].weight, "weight"), store.bytes[0].substr(64));
  EXPECT_FALSE(save.Run({{Piece(store.Nvfp4("e1", 8, 32), 1, 0, 1)}}, {ChunkOp{0, {}}}).ok());
}

TEST(OperationsTest, PartsThatAnExpanderCutAreTaken) {
  LinearStore store;
  Chain save{{"gate_up"}, {"gate", "up"}};
  const LogicalWeight gate = store.Plain("gate", {4, 8});
  const LogicalWeight up = store.Plain("up", {4, 8});
  const Strands parts =
      Must(save.Run({{Piece(gate, 0, 0, 2), Piece(up, 0, 1, 2)}}, {ChunkOp{1, {}}, SplitModulelistOp{0}}));
  ASSERT_THAT(parts, SizeIs(2));
  ASSERT_THAT(parts[1], SizeIs(1));
  store.ExpectSame(parts[1][0].weight, up);
  EXPECT_EQ(parts[1][0].index, 0u);
}

TEST(OperationsTest, ShardsComeInTheNumberThatTheConfigSays) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("ngram", {6, 4});
  Chain save{{"ngram.weight"}, {"ngram.shard_*.weight"}};
  Strands parts = Must(save.Run({{Whole(weight)}}, {ChunkOp{0, "parts", 3}}));
  ASSERT_THAT(parts, SizeIs(1));
  EXPECT_THAT(Indices(parts[0]), ElementsAre(0u, 1u, 2u));
  EXPECT_EQ(store.PartBytes(parts[0][2].weight, "weight"), store.bytes[0].substr(32));

  std::reverse(parts[0].begin(), parts[0].end());  // the list's own numbers say the order
  Chain load{{"ngram.shard_*.weight"}, {"ngram.weight"}};
  load.loading = true;
  const Strands joined = Must(load.Run(parts, {ConcatenateOp{0, "parts", 3}}));
  store.ExpectSame(joined[0][0].weight, weight);
  EXPECT_THAT(ErrorLines(load.Run(parts, {ConcatenateOp{0, "parts", 4}})),
              ElementsAre("QuantConversionUnsupportedError Concatenate: config.json says parts is 4, and there are 3 "
                          "parts"));
  EXPECT_THAT(ErrorLines(save.Run({{Whole(weight)}}, {ChunkOp{0, "parts", {}}})),
              ElementsAre("QuantConversionUnsupportedError Chunk: config.json does not say parts"));
  EXPECT_FALSE(save.Run({{Whole(weight)}}, {ChunkOp{0, "parts", 0}}).ok());
}

// ---- lists of experts ---------------------------------------------------------------------------------------------

TEST(OperationsTest, SplittingUndoesMergingOfExperts) {
  LinearStore store;
  std::vector<Entry> gates;
  std::vector<Entry> ups;
  for (uint64_t i = 0; i < 3; ++i) {
    gates.push_back(Listed(store.Nvfp4(fmt::format("{}.gate", i), 4, 32), i));
    ups.push_back(Listed(store.Nvfp4(fmt::format("{}.up", i), 4, 32), i));
  }
  std::vector<LogicalWeight> want;
  for (const Entry& entry : ups) want.push_back(entry.weight);
  std::swap(gates[0], gates[2]);
  Chain load{{"experts.*.gate", "experts.*.up"}, {"experts.gate_up"}};
  load.shared.merge_max = false;
  Strands strands = Must(load.Run({gates, ups}, {MergeModulelistOp{0}, ConcatenateOp{1, {}}}));
  ASSERT_THAT(strands, SizeIs(1));
  EXPECT_THAT(strands[0][0].weight.shape, ElementsAre(3, 8, 32));
  EXPECT_EQ(load.shared.checks.size(), 2u) << "scalars of gate and up must be equal";
  Chain save{{"experts.gate_up"}, {"experts.*.gate", "experts.*.up"}};
  strands = Must(save.Run(std::move(strands), {ChunkOp{1, {}}, SplitModulelistOp{0}}));
  ASSERT_THAT(strands, SizeIs(2));
  EXPECT_THAT(Indices(strands[1]), ElementsAre(0u, 1u, 2u));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(store.PartBytes(strands[1][i].weight, "weight"), store.PartBytes(want[i], "weight"));
    EXPECT_EQ(store.PartBytes(strands[0][i].weight, "weight"), store.PartBytes(gates[2 - i].weight, "weight"));
  }
}

TEST(OperationsTest, AStackOfNoExpertsIsRefused) {
  LinearStore store;
  Chain save{{"experts"}, {"experts.*"}};
  EXPECT_THAT(ErrorLines(save.Run({{Whole(store.Plain("e", {0, 4, 4}))}}, {SplitModulelistOp{0}})),
              ElementsAre("QuantConversionUnsupportedError SplitModulelist: a stack of 0 experts would leave nothing"));
}

// ---- Transpose ----------------------------------------------------------------------------------------------------

TEST(OperationsTest, TransposingTwiceIsWhatItWas) {
  LinearStore store;
  ExpectUndone(store, store.Plain("gate", {6, 4}), {TransposeOp{0, 1}}, {"gate.weight"}, {"text_moe.gate.weight"});
}

TEST(OperationsTest, WhatFitsTheReferenceIsNotTransposed) {
  LinearStore store;
  const LogicalWeight weight = store.StackedNvfp4("gate_up", 2, 32, 64);
  const auto reverted = [&](std::optional<Shape> shape) {
    Chain save{{"gate_up_proj"}, {"gate_up_proj"}, {std::move(shape)}};
    return Must(save.Run({{Whole(weight)}}, {TransposeOp{2, 1, true}}))[0][0].weight;
  };
  EXPECT_EQ(reverted(Shape{2, 64, 32}).shape, (Shape{2, 64, 32}));
  for (const auto& shape : {std::optional<Shape>(), std::optional<Shape>({2, 32, 64}), std::optional<Shape>({9, 9, 9})})
    store.ExpectSame(reverted(shape), weight);
}

TEST(OperationsTest, LoadingTransposesWhatDoesNotFitTheHiddenSize) {
  LinearStore store;
  const auto loaded = [&](const std::string& pattern, const Shape& shape, std::optional<uint64_t> hidden) {
    Chain load{{pattern}, {pattern}};
    load.loading = true;
    const LogicalWeight weight = store.Plain(fmt::format("{}{}", pattern, store.bytes.size()), shape);
    return Must(load.Run({{Whole(weight)}}, {TransposeOp{1, 2, true, hidden}}))[0][0].weight.shape;
  };
  EXPECT_EQ(loaded("experts.gate_up_proj", {2, 8, 12}, 8), (Shape{2, 12, 8}));
  EXPECT_EQ(loaded("experts.gate_up_proj", {2, 12, 8}, 8), (Shape{2, 12, 8}));
  EXPECT_EQ(loaded("experts.down_proj", {2, 6, 8}, 8), (Shape{2, 8, 6}));
  EXPECT_EQ(loaded("experts.down_proj", {2, 8, 6}, 8), (Shape{2, 8, 6}));
  EXPECT_EQ(loaded("experts.gate_up_proj", {2, 8, 12}, std::nullopt), (Shape{2, 8, 12}));
  EXPECT_EQ(loaded("experts.gate_up_proj", {2, 5, 12}, 8), (Shape{2, 5, 12}));
}

// ---- Interleave, PermuteForRope -----------------------------------------------------------------------------------

TEST(OperationsTest, LoadingTakesInterleavedRowsApart) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("w13", {6, 2});
  Chain load{{"w13"}, {"gate", "up"}};
  load.loading = true;
  const Strands parts = Must(load.Run({{Whole(weight)}}, {InterleaveOp{0}, ChunkOp{0, {}}}));
  const Dense rows = store.Elements(0);
  for (uint64_t side = 0; side < 2; ++side) {
    std::vector<uint64_t> want;
    for (uint64_t row = side; row < 6; row += 2) want.insert(want.end(), {rows.At({row, 0}), rows.At({row, 1})});
    EXPECT_EQ(store.Part(parts[side][0].weight, "weight").values, want);
  }
  ExpectUndone(store, weight, {InterleaveOp{0}, ChunkOp{0, {}}}, {"w13"}, {"gate", "up"});
  ExpectUndone(store, store.Nvfp4("q", 8, 32), {InterleaveOp{0}, ChunkOp{0, {}}}, {"w13"}, {"gate", "up"});
}

TEST(OperationsTest, AnOddNumberOfRowsHasNoHalves) {
  LinearStore store;
  Chain load{{"w13"}, {"gate_up"}};
  EXPECT_THAT(ErrorLines(load.Run({{Whole(store.Plain("w", {5, 2}))}}, {InterleaveOp{0}})),
              ElementsAre("QuantConversionUnsupportedError Interleave: a weight of shape [5, 2] has no two halves "
                          "along dimension 0"));
}

TEST(OperationsTest, RopePermutesTheNamedLinearsAndTheirBiases) {
  LinearStore store;
  const std::vector<Operation> operations = {ChunkOp{0, {}},
                                             PermuteForRopeOp{"vision_config", {"q_proj", "k_proj"}, false, 2}};
  for (const Shape& shape : {Shape{24, 4}, Shape{24}}) {
    const LogicalWeight fused = store.Plain(fmt::format("wqkv{}", shape.size()), shape);
    Chain load{{"wqkv"}, {"attn.q_proj", "attn.k_proj", "attn.v_proj"}};
    load.loading = true;
    const Strands parts = Must(load.Run({{Whole(fused)}}, operations));
    ASSERT_THAT(parts, SizeIs(3));
    const Dense all = store.Elements(static_cast<uint32_t>(store.bytes.size() - 1));
    for (uint64_t i = 0; i < 3; ++i) {
      const Dense part = test::DenseSlice(all, 0, i * 8, 8);
      // view(heads, half, 2).transpose(1, 2) of 2 heads of 4
      const Dense heads = test::DenseSplit(test::DenseSplit(part, 0, 4), 1, 2);
      EXPECT_EQ(store.Part(parts[i][0].weight, "weight").values,
                i == 2 ? part.values : test::DenseSwap(heads, 1, 2).values)
          << i;
    }
    ExpectUndone(store, fused, operations, {"wqkv"}, {"attn.q_proj", "attn.k_proj", "attn.v_proj"});
  }
}

TEST(OperationsTest, RopeNeedsTheNumberOfHeads) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("q", {8, 4});
  Chain save{{"attn.q_proj"}, {"wq"}};
  const auto permuted = [&](std::optional<uint64_t> heads) {
    return save.Run({{Whole(weight)}}, {PermuteForRopeOp{"vision_config", {"q_proj"}, true, heads}});
  };
  EXPECT_THAT(ErrorLines(permuted(std::nullopt)),
              ElementsAre("QuantConversionUnsupportedError PermuteForRope: config.json does not say how many attention "
                          "heads there are"));
  for (const uint64_t heads : {0, 3, 8, 1000}) {
    EXPECT_THAT(ErrorLines(permuted(heads)),
                ElementsAre(HasSubstr(fmt::format("8 rows are not {} heads of two halves", heads))));
  }
  // Names that are not listed need none.
  Chain other{{"attn.v_proj"}, {"wv"}};
  store.ExpectSame(
      Must(other.Run({{Whole(weight)}}, {PermuteForRopeOp{"vision_config", {"q_proj"}, true, {}}}))[0][0].weight,
      weight);
}

TEST(OperationsTest, RopeWithoutNamesPermutesEveryLinear) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("out", {8, 4});
  const std::vector<Operation> operations = {PermuteForRopeOp{std::nullopt, {}, false, 2}};
  Chain load{{"attn.out"}, {"attn.o_proj"}};
  load.loading = true;
  const Strands permuted = Must(load.Run({{Whole(weight)}}, operations));
  const Dense heads = test::DenseSplit(test::DenseSplit(store.Elements(0), 0, 4), 1, 2);
  EXPECT_EQ(store.Part(permuted[0][0].weight, "weight").values, test::DenseSwap(heads, 1, 2).values);
  ExpectUndone(store, weight, operations, {"attn.out"}, {"attn.o_proj"});
}

// ---- Split --------------------------------------------------------------------------------------------------------

TEST(OperationsTest, SplitCutsAtTheSizesOfTheParameters) {
  LinearStore store;
  const LogicalWeight fused = store.Nvfp4("qkv", 12, 32);
  Chain load{{"qkv"}, {"q", "k", "v"}, {Shape{8, 32}, Shape{2, 32}, Shape{2, 32}}};
  load.loading = true;
  Strands parts = Must(load.Run({{Whole(fused)}}, {SplitOp{0}}));
  ASSERT_THAT(parts, SizeIs(3));
  EXPECT_EQ(store.PartBytes(parts[0][0].weight, "weight"), store.bytes[0].substr(0, 128));
  EXPECT_EQ(store.PartBytes(parts[1][0].weight, "weight"), store.bytes[0].substr(128, 32));
  EXPECT_EQ(store.PartBytes(parts[2][0].weight, "weight_scale"), store.bytes[1].substr(20, 4));
  Chain save{{"q", "k", "v"}, {"qkv"}};
  parts = Must(save.Run(std::move(parts), {ReverseOperation(SplitOp{0})}));
  ASSERT_THAT(parts, SizeIs(1));
  store.ExpectSame(parts[0][0].weight, fused);
}

TEST(OperationsTest, SplitNeedsEverySize) {
  LinearStore store;
  Chain load{{"qkv"}, {"q", "k"}, {Shape{8, 32}, std::nullopt}};
  EXPECT_THAT(ErrorLines(load.Run({{Whole(store.Plain("qkv", {12, 32}))}}, {SplitOp{0}})),
              ElementsAre("QuantConversionUnsupportedError Split: the sizes of the parts are those of the model's own "
                          "parameters, which no file states"));
}

TEST(OperationsTest, SizesOfASplitMustAddUp) {
  LinearStore store;
  Chain load{{"qkv"}, {"q", "k"}, {Shape{8, 32}, Shape{8, 32}}};
  EXPECT_THAT(ErrorLines(load.Run({{Whole(store.Plain("qkv", {12, 32}))}}, {SplitOp{0}})),
              ElementsAre("QuantConversionUnsupportedError Split: parts of 16 in all do not make up dimension 0 of a "
                          "weight of shape [12, 32]"));
  EXPECT_THAT(ErrorLines(load.Run({{Whole(store.Plain("norm", {16}))}}, {SplitOp{1}})),
              ElementsAre(HasSubstr("Split: parts of 64 in all do not make up dimension 1")));
}

// ---- convolutions -------------------------------------------------------------------------------------------------

TEST(OperationsTest, ConvolutionsAreFlattenedAndBack) {
  LinearStore store;
  const LogicalWeight conv = store.Plain("proj", {4, 3, 2, 5, 5});
  ExpectUndone(store, conv, {Conv3dToLinearOp{3, {2, 5, 5}}}, {"proj"}, {"linear"});
  Chain load{{"proj"}, {"linear"}};
  EXPECT_THAT(Must(load.Run({{Whole(conv)}}, {Conv3dToLinearOp{3, {2, 5, 5}}}))[0][0].weight.shape,
              ElementsAre(4, 150));
  // What is flat already stays.
  EXPECT_THAT(
      Must(load.Run({{Whole(store.Plain("l", {4, 150}))}}, {Conv3dToLinearOp{3, {2, 5, 5}}}))[0][0].weight.shape,
      ElementsAre(4, 150));
  EXPECT_THAT(ErrorLines(load.Run({{Whole(store.Plain("c", {4, 3, 5}))}}, {Conv3dToLinearOp{3, {2, 5, 5}}})),
              ElementsAre(HasSubstr("a weight of shape [4, 3, 5] is no 3-D convolution")));
}

// ---- Ernie's experts ----------------------------------------------------------------------------------------------

// Four experts of gate and up, the first two for text; those for vision are narrower.
struct ErnieExperts {
  LinearStore store;
  std::vector<Entry> gates;
  std::vector<Entry> ups;

  ErnieExperts() {
    for (uint64_t i = 0; i < 4; ++i) {
      const uint64_t rows = i < 2 ? 6 : 4;
      gates.push_back(Listed(store.Plain(fmt::format("{}.gate", i), {rows, 8}), i));
      ups.push_back(Listed(store.Plain(fmt::format("{}.up", i), {rows, 8}), i));
    }
  }
};

const Patterns kErnieHub = {"experts.*.gate_proj.weight", "experts.*.up_proj.weight"};
const Patterns kErnieMemory = {"text_moe.experts.gate_up_proj", "vision_moe.experts.gate_up_proj"};

TEST(OperationsTest, ErnieFusesTextAndVisionExpertsApart) {
  ErnieExperts experts;
  const LinearStore& store = experts.store;
  Chain load{kErnieHub, kErnieMemory};
  load.loading = true;
  const Strands fused = Must(load.Run({experts.gates, experts.ups}, {ErnieFuseAndSplitOp{0, 1}}));
  ASSERT_THAT(fused, SizeIs(2));
  EXPECT_THAT(fused[0][0].weight.shape, ElementsAre(2, 12, 8));
  EXPECT_THAT(fused[1][0].weight.shape, ElementsAre(2, 8, 8));
  EXPECT_EQ(store.PartBytes(fused[1][0].weight, "weight"),
            store.PartBytes(experts.gates[2].weight, "weight") + store.PartBytes(experts.ups[2].weight, "weight") +
                store.PartBytes(experts.gates[3].weight, "weight") + store.PartBytes(experts.ups[3].weight, "weight"));

  Chain save{kErnieMemory, kErnieHub};
  const Strands apart = Must(save.Run(fused, {ErnieSplitAndDecoupleOp{0, 1}}));
  ASSERT_THAT(apart, SizeIs(2));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(apart[0][i].index, i);
    EXPECT_EQ(apart[1][i].index, i);
    store.ExpectSame(apart[0][i].weight, experts.gates[i].weight);
    store.ExpectSame(apart[1][i].weight, experts.ups[i].weight);
  }
}

// The strands of an export whose experts stand one by one: `text` and `vision` of them, numbered as given.
Strands Expanded(ErnieExperts* experts, const std::vector<uint64_t>& text, const std::vector<uint64_t>& vision) {
  Strands strands(2);
  for (size_t side = 0; side < 2; ++side) {
    for (const uint64_t index : side == 0 ? text : vision) {
      const size_t place = side * 2 + index % 2;
      strands[side].push_back(Piece(experts->gates[place].weight, index, 0, 2));
      strands[side].push_back(Piece(experts->ups[place].weight, index, 1, 2));
    }
  }
  return strands;
}

TEST(OperationsTest, ErnieExpertsStoredOneByOneCountOnFromTextToVision) {
  ErnieExperts experts;
  Chain save{kErnieMemory, kErnieHub};
  const Strands apart = Must(save.Run(Expanded(&experts, {0, 1}, {0, 1}), {ErnieSplitAndDecoupleOp{0, 1}}));
  ASSERT_THAT(apart, SizeIs(2));
  EXPECT_THAT(Indices(apart[0]), ElementsAre(0u, 1u, 2u, 3u));
  EXPECT_THAT(Indices(apart[1]), ElementsAre(0u, 1u, 2u, 3u));
  experts.store.ExpectSame(apart[1][2].weight, experts.ups[2].weight);
}

TEST(OperationsTest, ErnieVisionExpertsHaveNoNumberWhereATextExpertIsMissing) {
  ErnieExperts experts;
  Chain save{kErnieMemory, kErnieHub};
  EXPECT_THAT(ErrorLines(save.Run(Expanded(&experts, {1}, {0, 1}), {ErnieSplitAndDecoupleOp{0, 1}})),
              ElementsAre(HasSubstr("ErnieSplitAndDecoupleTextVisionExperts: ")));
  // The last list may have holes: nothing counts on from it.
  const Strands apart = Must(save.Run(Expanded(&experts, {0, 1}, {1}), {ErnieSplitAndDecoupleOp{0, 1}}));
  EXPECT_THAT(Indices(apart[0]), ElementsAre(0u, 1u, 3u));
}

TEST(OperationsTest, FewerExpertsThanStacksAreRefused) {
  ErnieExperts experts;
  Chain load{kErnieHub, kErnieMemory};
  EXPECT_THAT(ErrorLines(load.Run({{experts.gates[0]}, {experts.ups[0]}}, {ErnieFuseAndSplitOp{0, 1}})),
              ElementsAre(HasSubstr("there are fewer experts than tensors to stack them in")));
}

TEST(OperationsTest, StopsAtMorePartsThanAnyModelHas) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("w", {uint64_t{1} << 40, 0});
  Chain run{{"a"}, {"b"}};
  EXPECT_THAT(ErrorLines(run.Run({{Whole(weight)}}, {SplitModulelistOp{0}})),
              ElementsAre(HasSubstr("experts are more than any model has")));
  EXPECT_THAT(ErrorLines(run.Run({{Whole(weight)}}, {ChunkOp{0, "n", uint64_t{1} << 40}})),
              ElementsAre(HasSubstr("config.json says n is")));
}

TEST(OperationsTest, SizesOfAReferenceThatOverflowCutNothing) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("w", {6, 2});
  Chain run{{"a"}, {"b", "c"}, {Shape{UINT64_MAX - 1, 0}, Shape{8, 0}}};
  const Strands parts = Must(run.Run({{Whole(weight)}}, {ChunkOp{0, {}}}));
  EXPECT_EQ(parts.at(1).at(0).weight.shape, (Shape{3, 2}));
}

TEST(OperationsTest, DoesNotConcatenateExpertsThatAreStoredOneByOne) {
  LinearStore store;
  Chain run{{"a"}, {"b"}};
  EXPECT_THAT(ErrorLines(run.Run({{Piece(store.Plain("w", {6, 2}), 0, 0, 1), Piece(store.Plain("x", {6, 2}), 1, 0, 1)}},
                                 {ConcatenateOp{0, {}}})),
              ElementsAre(HasSubstr("stored one by one")));
}

}  // namespace
}  // namespace quantport
