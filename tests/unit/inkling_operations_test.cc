#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>

#include "plan/operations.h"
#include "unit/error_lines.h"
#include "unit/linears.h"
#include "unit/operation_chains.h"

namespace quantport {
namespace {

using test::Chain;
using test::Dense;
using test::ErrorLines;
using test::LinearStore;
using test::Must;
using test::Patterns;
using test::Whole;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

// ---- Inkling 2 ----------------------------------------------------------------------------------------------------

constexpr Inkling2UnpadVocabOp kUnpad = {false, 8, 6};
constexpr Inkling2UnpadVocabOp kPad = {true, 8, 6};

TEST(OperationsTest, LoadingDropsTheRowsThatPadAVocabulary) {
  LinearStore store;
  Chain load{{"lm_head.weight"}, {"lm_head.weight"}};
  load.loading = true;
  Strands rows = Must(load.Run({{Whole(store.Plain("unembed", {8, 4}))}}, {kUnpad}));
  EXPECT_THAT(rows[0][0].weight.shape, ElementsAre(6, 4));
  EXPECT_EQ(store.PartBytes(rows[0][0].weight, "weight"), store.bytes[0].substr(0, 48));
  rows = Must(load.Run({{Whole(store.Nvfp4("quantized", 8, 32))}}, {kUnpad}));
  EXPECT_EQ(store.PartBytes(rows[0][0].weight, "weight_scale"), store.bytes[2].substr(0, 12));
}

TEST(OperationsTest, SavingPadsAVocabularyWithZeros) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("head", {6, 4});
  Chain save{{"lm_head.weight"}, {"lm_head.weight"}};
  const Strands padded = Must(save.Run({{Whole(weight)}}, {ReverseOperation(kUnpad)}));
  EXPECT_THAT(padded[0][0].weight.shape, ElementsAre(8, 4));
  const auto runs = Runs(padded[0][0].weight.parts[0].array);
  ASSERT_TRUE(runs.ok());
  ASSERT_THAT(*runs, SizeIs(2));
  EXPECT_EQ((*runs)[0].bytes, 48u);
  EXPECT_EQ((*runs)[1].tensor, kZeros);
  EXPECT_EQ((*runs)[1].target, 48u);
  EXPECT_EQ((*runs)[1].bytes, 16u);
  // What was padded is dropped again, and what is full stays.
  Chain load{{"lm_head.weight"}, {"lm_head.weight"}};
  store.ExpectSame(Must(load.Run(padded, {kUnpad}))[0][0].weight, weight);
  const LogicalWeight full = store.Plain("full", {8, 4});
  store.ExpectSame(Must(save.Run({{Whole(full)}}, {kPad}))[0][0].weight, full);
}

TEST(OperationsTest, AVocabularyThatCanNotBePaddedOrCutIsRefused) {
  LinearStore store;
  const auto refused = [&](const LogicalWeight& weight, const Inkling2UnpadVocabOp& op) {
    Chain conversion{{"lm_head.weight"}, {"lm_head.weight"}};
    return ErrorLines(conversion.Run({{Whole(weight)}}, {op}));
  };
  const LogicalWeight six = store.Plain("six", {6, 4});
  EXPECT_THAT(refused(six, {true, {}, 6}), ElementsAre("QuantConversionUnsupportedError Inkling2UnpadVocab: "
                                                       "config.json does not say vocab_size"));
  EXPECT_THAT(refused(six, {false, 8, {}}), ElementsAre(HasSubstr("config.json does not say unpadded_vocab_size")));
  EXPECT_THAT(refused(six, {false, 8, 7}), ElementsAre(HasSubstr("there are fewer than 7 rows")));
  EXPECT_THAT(refused(six, {true, 5, 5}), ElementsAre(HasSubstr("a weight of shape [6, 4] has more than 5 rows")));
  EXPECT_THAT(refused(store.Nvfp4("q", 6, 32), kPad), ElementsAre(HasSubstr("a quantized weight has no such form")));
}

TEST(OperationsTest, ExpertsWithoutScalesNeedNoDequantizing) {
  LinearStore store;
  const LogicalWeight weight = store.Plain("w13", {2, 4, 8});
  const Patterns hub = {"w13_weight", "w13_weight_scale", "w13_weight_amax", "w13_weight_outer_scale_denominator"};
  Chain load{hub, {"gate_up_proj"}};
  load.loading = true;
  const Strands loaded = Must(load.Run({{Whole(weight)}, {}, {}, {}}, {Inkling2LoopDequantizeExpertsOp{}}));
  ASSERT_THAT(loaded, SizeIs(1));
  store.ExpectSame(loaded[0][0].weight, weight);
  // transformers never quantizes again: the one tensor is the first of the hub's.
  Chain save{{"gate_up_proj"}, hub};
  const Strands saved = Must(save.Run(loaded, {ReverseOperation(Inkling2LoopDequantizeExpertsOp{})}));
  ASSERT_THAT(saved, SizeIs(1));
  store.ExpectSame(saved[0][0].weight, weight);
}

TEST(OperationsTest, ExpertsWithScalesAreNotDequantized) {
  LinearStore store;
  Chain load{{"w13_weight", "w13_weight_scale"}, {"gate_up_proj"}};
  EXPECT_THAT(ErrorLines(load.Run({{Whole(store.Plain("w", {2, 4, 8}))}, {Whole(store.Plain("s", {2, 4, 1}))}},
                                  {Inkling2LoopDequantizeExpertsOp{}})),
              ElementsAre("QuantConversionUnsupportedError Inkling2LoopDequantizeExperts: loading dequantizes these "
                          "experts; quantized weights are only moved here"));
}

const Patterns kQueries = {"cross_pass_queries", "cross_pass_kv_queries"};

TEST(OperationsTest, MessageQueriesAreMergedLayerByLayerAndTakenApart) {
  LinearStore store;
  const LogicalWeight outer = store.Plain("queries", {6, 5});
  const LogicalWeight inner = store.Plain("kv_queries", {6, 5});
  Chain load{kQueries, {"message_input.query"}};
  load.loading = true;
  Strands strands = Must(load.Run({{Whole(outer)}, {Whole(inner)}}, {Inkling2LoopMergeMessageQueriesOp{}}));
  ASSERT_THAT(strands, SizeIs(1));
  EXPECT_THAT(strands[0][0].weight.shape, ElementsAre(3, 4, 5));
  const Dense queries = store.Elements(0);
  const Dense kv = store.Elements(1);
  const Dense want = test::MakeDense({3, 4, 5}, [&](std::vector<uint64_t> index) {
    const auto [layer, row, column] = std::tuple(index[0], index[1], index[2]);
    if (row == 0 || row == 3) return queries.At({2 * layer + (row == 3 ? 1 : 0), column});
    return kv.At({2 * layer + row - 1, column});
  });
  EXPECT_EQ(store.Part(strands[0][0].weight, "weight").values, want.values);

  Chain save{{"message_input.query"}, kQueries};
  strands = Must(save.Run(std::move(strands), {ReverseOperation(Inkling2LoopMergeMessageQueriesOp{})}));
  ASSERT_THAT(strands, SizeIs(2));
  store.ExpectSame(strands[0][0].weight, outer);
  store.ExpectSame(strands[1][0].weight, inner);
}

TEST(OperationsTest, MessageQueriesOfOtherShapesAreRefused) {
  LinearStore store;
  const auto merged = [&](const LogicalWeight& a, const LogicalWeight& b) {
    Chain load{kQueries, {"message_input.query"}};
    return ErrorLines(load.Run({{Whole(a)}, {Whole(b)}}, {Inkling2LoopMergeMessageQueriesOp{}}));
  };
  const LogicalWeight six = store.Plain("six", {6, 32});
  EXPECT_THAT(merged(six, store.Plain("five", {5, 32})),
              ElementsAre(HasSubstr("a weight of shape [5, 32] has no groups of 2 rows")));
  EXPECT_THAT(merged(six, store.Nvfp4("q", 6, 32)), ElementsAre(HasSubstr("a quantized weight has no such form")));
  EXPECT_THAT(merged(six, store.Plain("four", {4, 32})), SizeIs(1));
  Chain save{{"message_input.query"}, kQueries};
  EXPECT_THAT(
      ErrorLines(save.Run({{Whole(store.Plain("w", {3, 5, 8}))}}, {Inkling2LoopMergeMessageQueriesOp{true}})),
      ElementsAre("QuantConversionUnsupportedError Inkling2LoopMergeMessageQueries: a weight of shape [3, 5, 8] has no "
                  "four rows a layer"));
  Chain half{kQueries, {"message_input.query"}};
  EXPECT_THAT(ErrorLines(half.Run({{Whole(six)}, {}}, {Inkling2LoopMergeMessageQueriesOp{}})),
              ElementsAre(HasSubstr("puts two tensors together")));
}

}  // namespace
}  // namespace quantport
