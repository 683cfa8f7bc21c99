// Each producer's references to modules, rewritten from one namespace to the other.
#include "config/references.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "base/text.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using testing::ElementsAre;
using testing::HasSubstr;

using Names = std::vector<std::string>;

// A Mixtral of 11 layers of 3 experts, with a tower whose hub has a level more.
std::map<std::string, Names> Modules() {
  std::map<std::string, Names> modules = {{"lm_head", {"lm_head"}}};
  for (int l = 0; l < 11; ++l) {
    const std::string memory = fmt::format("model.layers.{}.mlp.", l);
    const std::string hub = fmt::format("model.layers.{}.block_sparse_moe.", l);
    modules[memory + "gate"] = {hub + "gate"};
    for (int e = 0; e < 3; ++e) {
      for (const auto& [from, to] :
           {std::pair("gate_proj", "w1"), std::pair("up_proj", "w3"), std::pair("down_proj", "w2")})
        modules[fmt::format("{}experts.{}.{}", memory, e, from)] = {fmt::format("{}experts.{}.{}", hub, e, to)};
    }
    modules[memory + "shared.gate_up_proj"] = {hub + "shared.gate_proj", hub + "shared.up_proj"};
    for (const char* leaf : {"fc1", "fc2"})
      modules[fmt::format("model.tower.layers.{}.{}", l, leaf)] = {fmt::format("tower.model.layers.{}.{}", l, leaf)};
  }
  modules["model.tower.norm"] = {"tower.norm"};
  return modules;
}

std::string Rename(const std::string& path) {
  return ReplaceAll(path == "lm_head" ? "language.lm_head" : path, ".mlp.", ".block_sparse_moe.");
}

Result<Names> TryRewrite(const std::string& entry, EntrySyntax syntax, MatchBudget* budget) {
  ReferenceRewriter rewriter(Modules(), Rename);
  return rewriter.Rewrite(entry, syntax, budget);
}

Names Rewritten(const std::string& entry, EntrySyntax syntax = EntrySyntax::kNames) {
  MatchBudget budget;
  auto entries = TryRewrite(entry, syntax, &budget);
  EXPECT_TRUE(entries.ok()) << entry;
  return entries ? *entries : Names();
}

TEST(RewriteTest, APathWhoseModulesMoveByDifferentLevelsStaysOneEntry) {
  // Renamed level by level, "model.tower" would be "tower.model" for some of its modules and "tower" for others.
  EXPECT_THAT(Rewritten("model.tower*"), ElementsAre("tower*"));
  EXPECT_THAT(Rewritten("model.tower.*"), ElementsAre("tower.*"));
  EXPECT_THAT(Rewritten("model.tower"), ElementsAre("tower"));
}

TEST(RewriteTest, AGlobWithStarsInsideStaysOneEntry) {
  EXPECT_THAT(Rewritten("model.layers.*.mlp.gate"), ElementsAre("model.layers.*.block_sparse_moe.gate"));
  EXPECT_THAT(Rewritten("model.layers.1.mlp.experts.*.gate_proj"),
              ElementsAre("model.layers.1.block_sparse_moe.experts.*.w1"));
  EXPECT_THAT(Rewritten("*tower*"), ElementsAre("*tower*"));
}

TEST(RewriteTest, AGlobThatNoOtherGlobReplacesBecomesNames) {
  EXPECT_THAT(Rewritten("model.layers.[24].mlp.gate"),
              ElementsAre("model.layers.2.block_sparse_moe.gate", "model.layers.4.block_sparse_moe.gate"));
}

TEST(RewriteTest, AnExpressionBecomesOneForTheSameModules) {
  EXPECT_THAT(Rewritten(R"(re:.*mlp\.experts\.[0-9]+\.(gate|up|down)_proj$)"),
              ElementsAre(R"(re:^model\.layers\.\d+\.block_sparse_moe\.experts\.\d+\.(w1|w2|w3)$)"));
  EXPECT_THAT(Rewritten(R"(re:.*experts.*)"), ElementsAre(R"(re:.*experts.*)"));
  EXPECT_THAT(Rewritten(R"(re:model\.tower\..*)"), ElementsAre(R"(re:^tower\..*)"));
}

TEST(RewriteTest, SegmentsAtTheEndAreRenamedLikeTheNamesThatTheyEnd) {
  EXPECT_THAT(Rewritten("mlp.gate", EntrySyntax::kSegments), ElementsAre("block_sparse_moe.gate"));
  EXPECT_THAT(Rewritten("gate", EntrySyntax::kSegments), ElementsAre("gate"));
  EXPECT_THAT(Rewritten("model.layers.1.mlp", EntrySyntax::kSegments), ElementsAre("model.layers.1.block_sparse_moe"));
  EXPECT_THAT(Rewritten("gate_proj", EntrySyntax::kSegments), ElementsAre("w1"));
  EXPECT_THAT(Rewritten("10.mlp.gate", EntrySyntax::kSegments), ElementsAre("10.block_sparse_moe.gate"));
  EXPECT_THAT(Rewritten(R"(model.layers.*.mlp.gate)", EntrySyntax::kSegments),
              ElementsAre(R"(^model\.layers\.\d+\.block_sparse_moe\.gate$)"));
}

TEST(RewriteTest, EndsOfNamesInABlock) {
  EXPECT_THAT(Rewritten("mlp.experts.0.gate_proj", EntrySyntax::kEnds), ElementsAre("block_sparse_moe.experts.0.w1"));
  EXPECT_THAT(Rewritten("shared.gate_up_proj", EntrySyntax::kEnds), ElementsAre("shared.gate_proj", "shared.up_proj"));
}

TEST(RewriteTest, ASignStaysBeforeAnExpression) {
  EXPECT_THAT(Rewritten(R"(-:.*mlp\.gate$)", EntrySyntax::kSigned),
              ElementsAre(R"(-:^model\.layers\.\d+\.block_sparse_moe\.gate$)"));
  EXPECT_THAT(
      Rewritten(R"(+:.*\.(1|10)\.mlp\..*up_proj)", EntrySyntax::kSigned),
      testing::UnorderedElementsAre(R"(+:^model\.layers\.(1|10)\.block_sparse_moe\.experts\.\d+\.w3$)",
                                    R"(+:^model\.layers\.(1|10)\.block_sparse_moe\.shared\.(gate_proj|up_proj)$)"));
  EXPECT_THAT(Rewritten(R"(.*gate$)", EntrySyntax::kSigned), ElementsAre(R"(.*gate$)"));
}

TEST(RewriteTest, ExpressionsForAnyPart) {
  EXPECT_THAT(Rewritten(R"(layers\.1\.mlp\.gate$)", EntrySyntax::kSearched),
              ElementsAre(R"(^model\.layers\.1\.block_sparse_moe\.gate$)"));
  EXPECT_THAT(Rewritten("model.layers.1.mlp.gate", EntrySyntax::kSearched),
              ElementsAre("model.layers.1.block_sparse_moe.gate"));
}

TEST(RewriteTest, AnEntryWithoutAModuleIsKept) {
  EXPECT_THAT(Rewritten("model.layers.57.mlp.gate"), ElementsAre("model.layers.57.block_sparse_moe.gate"));
  EXPECT_THAT(Rewritten("*shared_expert*"), ElementsAre("*shared_expert*"));
  EXPECT_THAT(Rewritten("re:.*audio.*"), ElementsAre("re:.*audio.*"));
  EXPECT_THAT(Rewritten("attn.gate", EntrySyntax::kSegments), ElementsAre("attn.gate"));
  EXPECT_THAT(Rewritten("Linear"), ElementsAre("Linear"));
}

TEST(RewriteTest, AnEntryThatSpeaksOfTheHubAlreadyIsKept) {
  EXPECT_THAT(Rewritten("tower*"), ElementsAre("tower*"));
  EXPECT_THAT(Rewritten("model.layers.1.block_sparse_moe.gate"), ElementsAre("model.layers.1.block_sparse_moe.gate"));
  EXPECT_THAT(Rewritten("block_sparse_moe.gate", EntrySyntax::kSegments), ElementsAre("block_sparse_moe.gate"));
}

Json Rewrite(const char* config) {
  ReferenceRewriter rewriter(Modules(), Rename);
  MatchBudget budget;
  const auto text = RewriteReferences(config, "config.json", &rewriter, &budget);
  EXPECT_TRUE(text.ok()) << config;
  return text ? *ParseJson(*text, "config.json", ErrorKind::kInvalidConfig) : Json();
}

TEST(RewriteReferencesTest, EveryFieldOfEveryProducer) {
  for (
      const auto& [before, after] : std::map<const char*, const char*>{
          {R"({"quant_method": "gptq", "modules_in_block_to_quantize": [["mlp.experts.0.gate_proj"], ["mlp.gate"]]})",
           R"({"quant_method": "gptq", "modules_in_block_to_quantize":
                [["block_sparse_moe.experts.0.w1"], ["block_sparse_moe.gate"]]})"},
          {R"({"quant_method": "gptq", "dynamic": {"-:.*mlp\\.gate": {}, ".*up_proj$": {"bits": 8}}})",
           R"({"quant_method": "gptq", "dynamic": {"-:^model\\.layers\\.\\d+\\.block_sparse_moe\\.gate$": {},
                "^model\\.layers\\.\\d+\\.block_sparse_moe\\.experts\\.\\d+\\.w3$": {"bits": 8},
                "^model\\.layers\\.\\d+\\.block_sparse_moe\\.shared\\.(gate_proj|up_proj)$": {"bits": 8}}})"},
          {R"({"quant_method": "auto-round", "block_name_to_quantize": "model.layers,model.tower.layers",
                "extra_config": {"model.layers.0.mlp.gate": {"bits": 16}}})",
           R"({"quant_method": "auto-round", "block_name_to_quantize": "model.layers,tower.model.layers",
                "extra_config": {"model.layers.0.block_sparse_moe.gate": {"bits": 16}}})"},
          {R"({"quant_method": "auto-round", "to_quant_block_names": [["model.tower.layers"]]})",
           R"({"quant_method": "auto-round", "to_quant_block_names": [["tower.model.layers"]]})"},
          {R"({"quant_method": "awq", "modules_to_not_convert": ["mlp.gate"]})",
           R"({"quant_method": "awq", "modules_to_not_convert": ["block_sparse_moe.gate"]})"},
          {R"({"quant_method": "bitsandbytes", "llm_int8_skip_modules": ["mlp.gate"]})",
           R"({"quant_method": "bitsandbytes", "llm_int8_skip_modules": ["block_sparse_moe.gate"]})"},
          {R"({"quant_method": "quark", "exclude": ["*.mlp.gate"], "layer_quant_config": {"*.experts.*.up_proj": 1},
                "export": {"kv_cache_group": ["model.layers.*.mlp.gate"]}})",
           R"({"quant_method": "quark", "exclude": ["model.layers.*.block_sparse_moe.gate"],
                "layer_quant_config": {"model.layers.*.block_sparse_moe.experts.*.w3": 1},
                "export": {"kv_cache_group": ["model.layers.*.block_sparse_moe.gate"]}})"},
          {R"({"quant_method": "compressed-tensors", "config_groups": {"0": {"targets": ["Linear", "re:.*up_proj$"]}}})",
           R"({"quant_method": "compressed-tensors", "config_groups": {"0": {"targets": ["Linear",
                "re:^model\\.layers\\.\\d+\\.block_sparse_moe\\.experts\\.\\d+\\.w3$",
                "re:^model\\.layers\\.\\d+\\.block_sparse_moe\\.shared\\.(gate_proj|up_proj)$"]}}})"}}) {
    EXPECT_EQ(Rewrite(fmt::format("{{\"quantization_config\": {}}}", before).c_str())["quantization_config"],
              Json::parse(after))
        << before;
    // As a file of its own: quantize_config.json, quantization_config.json, quant_config.json.
    EXPECT_EQ(Rewrite(before), Json::parse(after)) << before;
  }
}

TEST(RewriteReferencesTest, AnEntryThatTakesTooLongIsAnErrorThatNamesFileAndEntry) {
  ReferenceRewriter rewriter(Modules(), Rename);
  MatchBudget budget;
  const auto text =
      RewriteReferences(R"({"quantization_config": {"ignore": ["re:(.+)+x$"]}})", "config.json", &rewriter, &budget);
  EXPECT_THAT(ErrorLines(text), ElementsAre(HasSubstr("re:(.+)+x$")));
  EXPECT_EQ(text.errors()[0].file, "config.json");
}

}  // namespace
}  // namespace quantport
