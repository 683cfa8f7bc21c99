// Entries applied to modules: order, patterns, classes, containers of experts, and what can't be exported.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"
#include "dialect/modelopt_files.h"
#include "dialect/modelopt_formats.h"
#include "recipe/load.h"
#include "recipe/resolve.h"

namespace quantport {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const QuantizableModule kLinear{"model.layers.0.mlp.down_proj", ModuleKind::kLinear, "Linear"};
const QuantizableModule kHead{"lm_head", ModuleKind::kLinear, "Linear"};
const QuantizableModule kEmbedding{"model.embed_tokens", ModuleKind::kEmbedding, "Embedding"};
const QuantizableModule kExperts{"model.layers.0.mlp.experts", ModuleKind::kFusedExperts, "Experts", 3, true};
const QuantizableModule kUngated{"model.layers.0.mixer.experts", ModuleKind::kFusedExperts, "Experts", 3, false};
const QuantizableModule kAttention{"model.layers.0.self_attn", ModuleKind::kAttention, "LlamaAttention"};
const QuantizableModule kNorm{"model.norm", ModuleKind::kInputOnly, "BatchNorm1d"};

Result<Recipe> RecipeOf(const std::string& entries) {
  RecipeSources sources;
  sources.read = [&](const std::string& path) -> Result<std::optional<std::string>> {
    if (path != "r.yaml") return std::optional<std::string>();
    return std::optional<std::string>("quant_cfg:\n- {quantizer_name: '*', enable: false}\n" + entries);
  };
  return LoadRecipe("r", sources);
}

Result<ResolvedRecipe> Resolve(const std::string& entries, const std::vector<QuantizableModule>& modules) {
  const auto recipe = RecipeOf(entries);
  if (!recipe) return recipe.errors();
  return ResolveQuantizers(*recipe, modules);
}

std::vector<std::string> Formats(const Result<ResolvedRecipe>& model) {
  std::vector<std::string> formats;
  if (!model) return {model.errors().front().ToString()};
  for (const ResolvedModule& module : model->modules) formats.emplace_back(ModelOptFormatName(module.format));
  return formats;
}

constexpr const char* kFp8 = "cfg: {num_bits: e4m3}";
constexpr const char* kNvfp4 = "cfg: {num_bits: e2m1, block_sizes: {-1: 16, type: dynamic, scale_bits: e4m3}}";

std::string Entry(const std::string& pattern, const std::string& rest) {
  return "- {quantizer_name: '" + pattern + "', " + rest + "}\n";
}

TEST(RecipeResolveTest, LaterEntriesReplaceEarlierOnesAsAWhole) {
  EXPECT_THAT(Formats(Resolve(Entry("*weight_quantizer", kFp8) + Entry("*weight_quantizer", kNvfp4), {kLinear})),
              ElementsAre("w4a16_nvfp4"));
  EXPECT_THAT(Formats(Resolve(Entry("*weight_quantizer", kFp8) + Entry("lm_head*", "enable: false"), {kLinear, kHead})),
              ElementsAre("fp8", ""));
  EXPECT_THAT(Formats(Resolve(Entry("*weight_quantizer", kFp8) + Entry("*", "enable: false") +
                                  Entry("*weight_quantizer", "enable: true"),
                              {kLinear})),
              ElementsAre("fp8"));
}

TEST(RecipeResolveTest, ExpertsMatchByTheNameOfOneLinear) {
  EXPECT_THAT(Formats(Resolve(Entry("*.experts.*weight_quantizer", kNvfp4), {kExperts, kUngated, kLinear})),
              ElementsAre("w4a16_nvfp4", "w4a16_nvfp4", ""));
  EXPECT_THAT(Formats(Resolve(Entry("*mlp.experts.*_proj_weight_quantizers.*", kNvfp4), {kExperts, kUngated})),
              ElementsAre("w4a16_nvfp4", ""));
}

TEST(RecipeResolveTest, OneExpertSetOtherwiseIsUnsupported) {
  const auto model = Resolve(Entry("*weight_quantizer", kNvfp4) + Entry("*weight_quantizers.1", kFp8), {kExperts});
  EXPECT_THAT(Formats(model).front(), HasSubstr("different settings for the experts of one container"));
  EXPECT_EQ(model.errors().front().tensor, kExperts.name);
  EXPECT_EQ(model.errors().front().file, "r.yaml:4");
}

TEST(RecipeResolveTest, AProjectionSetOtherwiseIsUnsupported) {
  EXPECT_THAT(
      Formats(Resolve(Entry("*weight_quantizer", kNvfp4) + Entry("*.down_proj_weight*", "enable: false"), {kExperts}))
          .front(),
      HasSubstr("different formats for the two projections"));
}

TEST(RecipeResolveTest, AParentClassRestrictsAnEntry) {
  const std::string entries =
      Entry("*weight_quantizer", kFp8) + "- {quantizer_name: '*', parent_class: nn.Embedding, enable: false}\n";
  EXPECT_THAT(Formats(Resolve(entries, {kLinear, kEmbedding})), ElementsAre("fp8", ""));
  EXPECT_THAT(Formats(Resolve("- {quantizer_name: '*', parent_class: nn.Linen, enable: false}\n", {kLinear})).front(),
              HasSubstr("the parent_class nn.Linen is no class"));
}

TEST(RecipeResolveTest, AnEmbeddingsInputIsNeverQuantized) {
  const auto model = Resolve(Entry("*", kFp8), {kEmbedding, kNorm});
  ASSERT_TRUE(model.ok()) << Formats(model).front();
  EXPECT_FALSE(model->modules[0].Find("input_quantizer")->enabled);
  EXPECT_TRUE(model->modules[0].Find("weight_quantizer")->enabled);
  EXPECT_TRUE(model->modules[1].Find("input_quantizer")->enabled);
}

TEST(RecipeResolveTest, WhatTheExportCanNotSayNamesRecipeEntryAndModule) {
  for (const auto& [cfg, said] : std::vector<std::pair<std::string, std::string>>{
           {"{num_bits: 4}", "INT4 weights without static groups"},
           {"{num_bits: 8}", "INT8 weights without a scale per output channel"},
           {"{num_bits: 6, axis: 0}", "int6 weights"},
           {"{num_bits: e2m1}", "FP4 weights without blocks"},
           {"{num_bits: e4m3, block_sizes: {-1: 128, -2: 64}}", "FP8 blocks that are not square"},
           {"{num_bits: e4m3, axis: 1}", "another axis than 0"},
           {"{num_bits: e3m2, block_sizes: {-1: 32, type: dynamic, scale_bits: e8m0}}", "e3m2 weights"},
           {"{num_bits: e4m3, rotate: true}", "rotated"},
           {"[{num_bits: e4m3}, {num_bits: 4}]", "quantized several times"}}) {
    const auto model = Resolve(Entry("*weight_quantizer", "cfg: " + cfg), {kLinear});
    ASSERT_FALSE(model.ok()) << cfg;
    const Error& error = model.errors().front();
    EXPECT_THAT(error.message, HasSubstr(said)) << cfg;
    EXPECT_THAT(error.message, HasSubstr("entry \"*weight_quantizer\" of recipe r")) << cfg;
    EXPECT_EQ(error.tensor, kLinear.name);
    EXPECT_EQ(error.file, "r.yaml:3");
  }
}

TEST(RecipeResolveTest, TheKvCacheHasOneFormat) {
  const QuantizableModule other{"model.layers.1.self_attn", ModuleKind::kAttention, "LlamaAttention"};
  const std::string fp8 = Entry("*[kv]_bmm_quantizer", kFp8);
  const auto model = Resolve(fp8, {kAttention, other});
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->kv_cache, "FP8");
  EXPECT_THAT(Formats(Resolve(fp8 + Entry("*layers.1*[kv]_bmm_quantizer", kNvfp4), {kAttention, other})).front(),
              HasSubstr("a KV cache of NVFP4 here and of FP8 before"));
}

TEST(RecipeResolveTest, PatternsMatchAsPythonsFnmatch) {
  EXPECT_TRUE(GlobMatch("*[kv]_bmm_quantizer", "a.k_bmm_quantizer"));
  EXPECT_FALSE(GlobMatch("*[!kv]_bmm_quantizer", "a.k_bmm_quantizer"));
  EXPECT_FALSE(GlobMatch("*mlp.gate.*", "model.mlp.gate_proj.weight_quantizer"));
  EXPECT_FALSE(GlobMatch("LM_HEAD*", "lm_head.weight_quantizer"));
  EXPECT_TRUE(GlobMatch("[.-!!c]", "^"));     // Python drops the backward range, and negates
  EXPECT_TRUE(GlobMatch("[{-\xe1!]", "!"));   // no range that runs backwards: bytes have no sign
  EXPECT_TRUE(GlobMatch("[z-a!--zc]", "b"));  // of the range that the negation cuts, its ends are left
  EXPECT_FALSE(GlobMatch("[b-a]", "a"));
}

TEST(RecipeResolveTest, ExcludedModulesBecomeTheShortestPrefixesThatServe) {
  EXPECT_THAT(
      SummarizeExcluded({"lm_head", "model.layers.1.self_attn.q_proj", "visual.blocks.0.fc", "visual.blocks.1.fc"},
                        {"model.layers.10.self_attn.q_proj"}),
      ElementsAre("lm_head", "model.layers.1.*", "visual*"));
  EXPECT_THAT(SummarizeExcluded({"a.b.c", "a.b"}, {"a.b.d"}), ElementsAre("a.b", "a.b.c"));
}

}  // namespace
}  // namespace quantport
