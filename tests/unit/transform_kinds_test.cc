// Transform kinds and pattern rules that came with transformers 5.24.0. Expected names are what its own classes give.
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "mapping/pattern.h"
#include "mapping/registry.h"
#include "mapping/transform.h"

namespace quantport {
namespace {

Transform Rename(std::vector<std::string> sources, std::vector<std::string> targets,
                 PatternRules rules = PatternRules::kWholeWords) {
  Transform transform;
  transform.rules = rules;
  transform.source_patterns = std::move(sources);
  transform.target_patterns = std::move(targets);
  return transform;
}

// The new name, or the old one where nothing matches.
std::string Apply(const Transform& transform, const std::string& key) {
  auto compiled = CompiledTransform::Compile(transform);
  EXPECT_TRUE(compiled);
  bool active = false;
  bool exceeded = false;
  const auto match = compiled->Rename(key, &active, &exceeded);
  return match ? match->renamed : key;
}

TEST(PatternRulesTest, APatternEndsAtTheEndOfAWord) {
  const Transform renaming = Rename({"attn.weight"}, {"self_attn.weight"});
  EXPECT_EQ(Apply(renaming, "attn.weight"), "self_attn.weight");
  EXPECT_EQ(Apply(renaming, "attn.weight.absmax"), "self_attn.weight.absmax");
  EXPECT_EQ(Apply(renaming, "attn.weight_scale_inv"), "attn.weight_scale_inv");
  EXPECT_EQ(Apply(Rename({"attn.weight"}, {"self_attn.weight"}, PatternRules::kAnywhere), "attn.weight_scale_inv"),
            "self_attn.weight_scale_inv");
  EXPECT_EQ(Apply(Rename({"hc_"}, {"hc."}), "hc_fn"), "hc.fn");
}

TEST(PatternRulesTest, LongerSourcesAreTriedFirst) {
  Transform converter = Rename({"proj", "proj.absmax"}, {"fused"});
  auto compiled = CompiledTransform::Compile(converter);
  ASSERT_TRUE(compiled);
  bool active = false;
  bool exceeded = false;
  EXPECT_EQ(compiled->Rename("proj.absmax", &active, &exceeded)->source, 1U);
  converter.rules = PatternRules::kAnywhere;
  compiled = CompiledTransform::Compile(converter);
  ASSERT_TRUE(compiled);
  EXPECT_EQ(compiled->Rename("proj.absmax", &active, &exceeded)->source, 0U);
}

TEST(PatternRulesTest, AnEscapeIsTakenOffOnce) {
  for (const PatternRules rules : {PatternRules::kAnywhere, PatternRules::kWholeWords})
    EXPECT_EQ(ProcessTargetPattern(R"(a\\.b\.c)", rules).pattern, R"(a\.b.c)");
}

TEST(PatternRulesTest, DotsInsideAGroupStayLiteral) {
  const Transform reversed = ReverseTransform(Rename({R"((vision\.layers)\.ls)"}, {R"(\1.lambda)"}));
  EXPECT_EQ(reversed.rules, PatternRules::kWholeWords);
  EXPECT_EQ(Apply(reversed, "vision.layers.lambda"), "vision.layers.ls");
  EXPECT_EQ(Apply(reversed, "visionXlayers.lambda"), "visionXlayers.lambda");
}

TEST(IndexOffsetTest, ShiftsTheNumberAndBack) {
  Transform renaming = Rename({R"(attn_res\.attn_queries\.(\d+))"}, {R"(layers.\1.attention_input.query)"});
  renaming.kind = TransformKind::kIndexOffsetRename;
  renaming.offset = 1;
  EXPECT_EQ(Apply(renaming, "model.attn_res.attn_queries.9"), "model.layers.10.attention_input.query");
  const Transform reversed = ReverseTransform(renaming);
  EXPECT_EQ(reversed.offset, -1);
  EXPECT_EQ(Apply(reversed, "model.layers.10.attention_input.query"), "model.attn_res.attn_queries.9");
  EXPECT_EQ(Apply(renaming, "attn_res.attn_queries.99999999999999999999"),
            "attn_res.attn_queries.99999999999999999999");
}

TEST(LayerPairTest, CollapsesPairsAndStaysCollapsed) {
  Transform pairs = Rename({R"(layers\.(\d+))"}, {R"(layers.\1)"});
  pairs.kind = TransformKind::kLayerPairCollapse;
  EXPECT_EQ(Apply(pairs, "model.layers.6.mixer.q_proj.weight"), "model.layers.3.self_attn.q_proj.weight");
  EXPECT_EQ(Apply(pairs, "model.layers.7.mixer.up_proj.weight"), "model.layers.3.mlp.up_proj.weight");
  EXPECT_EQ(Apply(pairs, "layers.7.mlp_alpha"), "layers.3.lambda_2");
  EXPECT_EQ(Apply(pairs, "layers.6.attn_alpha"), "layers.3.lambda_1");
  EXPECT_EQ(Apply(pairs, "layers.7.mlp_alphabet"), "layers.7.mlp_alphabet");
  EXPECT_EQ(Apply(ReverseTransform(pairs), "layers.3.self_attn.q_proj.weight"), "layers.3.self_attn.q_proj.weight");
}

std::optional<std::string> ParseProblem(const std::string& transform) {
  const auto registry = Registry::Parse(
      R"({"format": 1, "pattern_rules": 2, "classes": {}, "conversions": {"m": [)" + transform + "]}}", "f");
  if (registry) return std::nullopt;
  return registry.errors()[0].message;
}

TEST(RegistryTest, NewKindsAreParsedAndBounded) {
  const std::string patterns = R"x("source_patterns": ["a.(\\d+)"], "target_patterns": ["b.\\1"])x";
  EXPECT_EQ(ParseProblem(R"({"type": "LayerPairCollapse", )" + patterns + "}"), std::nullopt);
  EXPECT_EQ(ParseProblem(R"({"type": "Inkling2IndexOffsetWeightRename", "offset": 1, )" + patterns + "}"),
            std::nullopt);
  EXPECT_NE(ParseProblem(R"({"type": "Inkling2IndexOffsetWeightRename", )" + patterns + "}"), std::nullopt);
  EXPECT_NE(ParseProblem(R"({"type": "Inkling2IndexOffsetWeightRename", "offset": 2000000000, )" + patterns + "}"),
            std::nullopt);
  EXPECT_EQ(ParseProblem(R"({"type": "WeightRenaming", "source_patterns": ["a", "b"], "target_patterns": ["c"]})"),
            std::nullopt);
}

TEST(ReverseOperationTest, NewOperations) {
  EXPECT_EQ(OperationName(ReverseOperation(SplitOp{1})), "Concatenate");
  EXPECT_EQ(std::get<ConcatenateOp>(ReverseOperation(SplitOp{1})).dim, 1);
  EXPECT_TRUE(std::get<Inkling2UnpadVocabOp>(ReverseOperation(Inkling2UnpadVocabOp{})).inverse);
  EXPECT_TRUE(
      std::get<Inkling2LoopMergeMessageQueriesOp>(ReverseOperation(Inkling2LoopMergeMessageQueriesOp{})).inverse);
  EXPECT_EQ(OperationName(ReverseOperation(Inkling2LoopDequantizeExpertsOp{})), "Inkling2LoopDequantizeExperts");
}

}  // namespace
}  // namespace quantport
