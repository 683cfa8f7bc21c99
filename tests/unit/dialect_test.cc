// Which modules each producer's config speaks of, as the producer's own library reads its lists.
#include "dialect/dialect.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "dialect/module_names.h"

namespace quantport {
namespace {

using testing::ElementsAre;

ConfigClaims Read(const std::string& quantization) {
  auto claims = ReadClaims(R"({"quantization_config": )" + quantization + "}", "config.json");
  EXPECT_TRUE(claims && *claims) << quantization;
  return **claims;
}

std::string_view Name(Says says) {
  switch (says) {
    case Says::kNothing:
      return "nothing";
    case Says::kPlain:
      return "plain";
    case Says::kQuantized:
      return "quantized";
    case Says::kEither:
      return "either";
  }
  return "";
}

// What the config says of each module, "quantized g32 b8" where its scheme states sizes.
std::vector<std::string> Say(const std::string& quantization, const std::vector<std::string>& names,
                             ModuleClass kind = ModuleClass::kLinear) {
  const ConfigClaims claims = Read(quantization);
  std::vector<NamedModule> modules;
  for (const std::string& name : names) modules.push_back({name, kind});
  std::vector<std::string> said;
  MatchBudget budget;
  const auto matched = MatchClaims(claims, modules, &budget);
  EXPECT_TRUE(matched) << quantization;
  for (const Claim& claim : matched->modules) {
    std::string text(Name(claim.says));
    if (claim.says == Says::kQuantized) {
      const WeightScheme& scheme = claims.schemes[claim.scheme];
      if (scheme.group_size > 0) text += fmt::format(" g{}", scheme.group_size);
      if (scheme.bits > 0) text += fmt::format(" b{}", scheme.bits);
    }
    said.push_back(std::move(text));
  }
  return said;
}

TEST(ModelOptTest, EntriesAreGlobsOverTheWholeName) {
  EXPECT_THAT(
      Say(R"({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["a.layers.1*", "*.g?te", "b.[cd]"]})",
          {"a.layers.1.q", "a.layers.10.q", "x.a.layers.1.q", "m.gate2", "b.c", "b.cc"}),
      ElementsAre("plain", "plain", "quantized", "quantized", "plain", "quantized"));
}

TEST(ModelOptTest, TheNameOfATowerLeavesOpenWhatLiesBelow) {
  EXPECT_THAT(Say(R"({"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["model.tower"]})",
                  {"model.tower", "model.tower.q", "model.tower2.q"}),
              ElementsAre("plain", "either", "quantized"));
}

TEST(ModelOptTest, ConvolutionsAreCoveredAndEmbeddingsAreNot) {
  const std::string config = R"({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]})";
  EXPECT_THAT(Say(config, {"a.conv1d"}, ModuleClass::kConvolution), ElementsAre("quantized"));
  EXPECT_THAT(Say(config, {"a.experts"}, ModuleClass::kExperts), ElementsAre("quantized"));
  EXPECT_THAT(Say(config, {"a.embed_tokens"}, ModuleClass::kEmbedding), ElementsAre("either"));
}

TEST(ModelOptTest, MixedPrecisionSpeaksOfItsLayersAlone) {
  EXPECT_THAT(Say(R"({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {
                      "a.experts": {"quant_algo": "NVFP4", "group_size": 16}, "a.q": {"quant_algo": "FP8"},
                      "a.experts.1.w2": {"quant_algo": "NVFP4", "group_size": 32}}})",
                  {"a.experts", "a.experts.0.w1", "a.experts.1.w2", "a.q", "a.k", "a.experts2"}),
              ElementsAre("quantized g16", "quantized g16", "quantized g32", "quantized", "plain", "plain"));
}

TEST(ModelOptTest, AnAlgorithmOfNullQuantizesNothing) {
  auto claims = ReadClaims(R"({"quantization": {"quant_algo": null, "kv_cache_quant_algo": "FP8"}})", "file");
  ASSERT_TRUE(claims && *claims);
  EXPECT_EQ((*claims)->otherwise, Says::kPlain);
}

TEST(CompressedTensorsTest, IgnoredFirstThenNamesThenExpressionsThenClasses) {
  EXPECT_THAT(Say(R"({"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["a.o", "re:.*gate$"],
                      "config_groups": {"0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 128}},
                                        "1": {"targets": ["re:.*down"], "weights": {"num_bits": 8}},
                                        "2": {"targets": ["a.down"], "weights": {"num_bits": 2}}}})",
                  {"a.o", "a.o.x", "a.mlp.gate", "a.mlp.gate_proj", "b.down", "a.down"}),
              ElementsAre("plain", "quantized g128 b4", "plain", "quantized g128 b4", "quantized b8", "quantized b2"));
}

TEST(CompressedTensorsTest, WhatNoTargetNamesIsLeftAlone) {
  const auto config = [&](std::string_view target) {
    return fmt::format(R"({{"quant_method": "compressed-tensors", "config_groups": {{"0": {{"targets": [{}],
                           "weights": {{"num_bits": 4}}}}}}}})",
                       target);
  };
  EXPECT_THAT(Say(config(R"("re:.*mlp")"), {"a.mlp.up", "a.q"}), ElementsAre("quantized b4", "plain"));
  EXPECT_THAT(Say(config(R"("Linear")"), {"a.conv1d"}, ModuleClass::kConvolution), ElementsAre("plain"));
  // Of which modules a decoder layer holds, tensors do not tell.
  EXPECT_THAT(Say(config(R"("LlamaDecoderLayer")"), {"a.q"}), ElementsAre("nothing"));
}

TEST(FineGrainedFp8Test, EntriesAreWholeSegmentsAtEitherEnd) {
  EXPECT_THAT(
      Say(R"({"quant_method": "fp8", "modules_to_not_convert": ["mlp.gate", "b_proj", "5.attention.g_proj", "model.visual"]})",
          {"m.0.mlp.gate", "m.0.mlp.gate_proj", "m.0.q_b_proj", "m.0.b_proj", "m.5.attention.g_proj",
           "m.15.attention.g_proj", "model.visual.blocks.0.q_x", "model.visual2.q"}),
      ElementsAre("plain", "quantized", "quantized", "plain", "plain", "quantized", "plain", "quantized"));
}

TEST(FineGrainedFp8Test, LayersOfAnotherFormatLeaveTheRestOpen) {
  EXPECT_THAT(Say(R"({"quant_method": "fp8", "ignore": ["*.attn.*"], "quantized_layers": {
                      "layers.0.ffn.experts": {"quant_algo": "NVFP4", "group_size": 16}}})",
                  {"layers.0.ffn.experts.3.w1", "layers.0.attn.wq_a"}),
              ElementsAre("quantized g16", "either"));
}

TEST(GptOssTest, EntriesWithSpecialCharactersAreExpressions) {
  EXPECT_THAT(Say(R"({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]})",
                  {"model.layers.7.self_attn.q_proj", "lm_head", "model.layers.7.mlp.experts", "model.layers.7.x"}),
              ElementsAre("plain", "plain", "quantized", "either"));
}

TEST(GptqTest, TheFirstOverrideThatMatchesCounts) {
  EXPECT_THAT(Say(R"({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {
                      "-:.*\\.2\\.": {}, "+:.*\\.1\\.": {"bits": 8}, ".*\\.1\\.down": {"group_size": 32}, ".*\\.3\\.": {"group_size": 32}}})",
                  {"m.2.down", "m.1.down", "m.3.down", "m.0.down", "lm_head"}),
              ElementsAre("plain", "quantized g128 b8", "quantized g32 b4", "quantized g128 b4", "either"));
}

TEST(GptqTest, AListOfModulesToQuantizeLeavesTheOthersAlone) {
  EXPECT_THAT(
      Say(R"({"quant_method": "gptq", "bits": 4, "modules_in_block_to_quantize": [["self_attn.q_proj"], ["mlp.up_proj"]]})",
          {"m.0.self_attn.q_proj", "m.0.mlp.up_proj", "m.0.mlp.down_proj", "m.0.xself_attn.q_proj"}),
      ElementsAre("quantized b4", "quantized b4", "plain", "plain"));
}

TEST(GptqTest, AFileOfItsOwnStatesNoMethod) {
  auto claims = ReadClaims(R"({"bits": 4, "group_size": 128, "desc_act": false})", "quantize_config.json");
  ASSERT_TRUE(claims && *claims);
  EXPECT_EQ((*claims)->method, "gptq");
  EXPECT_TRUE((*claims)->schemes[0].ordered_groups);
}

TEST(ReadClaimsTest, AQuantizationThatIsNoObjectIsAnErrorAndNotNone) {
  for (const char* config : {R"({"quantization_config": "fp8"})", R"({"quantization_config": [1]})",
                             R"({"compression_config": 3})", R"({"text_config": {"quantization_config": true}})"}) {
    const auto claims = ReadClaims(config, "config.json");
    ASSERT_FALSE(claims.ok()) << config;
    EXPECT_THAT(claims.errors()[0].message, testing::HasSubstr("is no JSON object"));
    EXPECT_EQ(claims.errors()[0].file, "config.json");
  }
  const auto none = ReadClaims(R"({"quantization_config": null, "text_config": null})", "config.json");
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_value());
}

TEST(AwqTest, OnlyBlocksOfTheDecoderAreCovered) {
  EXPECT_THAT(Say(R"({"quant_method": "awq", "bits": 4, "group_size": 128, "modules_to_not_convert": ["visual"]})",
                  {"model.layers.0.q", "model.norm_proj", "visual.blocks.0.q"}),
              ElementsAre("quantized g128 b4", "either", "plain"));
}

TEST(BitsAndBytesTest, SkippedModulesArePaths) {
  EXPECT_THAT(
      Say(R"({"quant_method": "bitsandbytes", "load_in_8bit": true, "llm_int8_skip_modules": ["model.layers.1.mlp", "lm_head"]})",
          {"model.layers.1.mlp.up", "model.layers.11.mlp.up", "lm_head"}),
      ElementsAre("plain", "quantized", "plain"));
}

TEST(QuarkTest, LayersByNameThenPatternThenClassThenAll) {
  EXPECT_THAT(Say(R"({"quant_method": "quark", "exclude": ["lm_head", "*.gate", "re:mtp\\..*"],
                      "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32}},
                      "layer_quant_config": {"*.q": {"weight": {"dtype": "fp4", "group_size": 64}},
                                             "a.q": {"weight": {"dtype": "fp4", "group_size": 16}}, "a.o": null}})",
                  {"lm_head", "a.gate", "mtp.fc2", "a.q", "b.q", "b.k", "a.o"}),
              ElementsAre("plain", "plain", "plain", "quantized g16", "quantized g64", "quantized g32", "plain"));
}

TEST(AutoRoundTest, NamesCountBeforeExpressionsAndBlocksBeforeAll) {
  EXPECT_THAT(
      Say(R"({"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4, "group_size": 128,
                      "block_name_to_quantize": "model.layers,model.blocks",
                      "extra_config": {".*layers\\.1\\..*": {"bits": 8}, "model.layers.1.q": {"bits": 16}}})",
          {"model.layers.1.q", "model.layers.1.k", "model.layers.0.k", "model.blocks.0.k", "model.other.0.k"}),
      ElementsAre("plain", "quantized g128 b8", "quantized g128 b4", "quantized g128 b4", "either"));
}

TEST(LeftAloneTest, RoutersHeadsAndTowersMayStayAsTheyAre) {
  for (const char* name : {"lm_head", "model.layers.0.mlp.gate", "model.layers.3.block_sparse_moe.router.layer",
                           "model.layers.61.eh_proj", "vision_tower.blocks.0.qkv", "mtp.fc"})
    EXPECT_TRUE(IsUsuallyLeftAlone(name)) << name;
  for (const char* name : {"model.layers.0.mlp.gate_proj", "model.layers.0.linear_attn.in_proj_qkvz",
                           "mtp.layers.0.mlp.up_proj", "model.layers.0.mixer.conv1d", "fc"})
    EXPECT_FALSE(IsUsuallyLeftAlone(name)) << name;
}

TEST(MatchClaimsTest, ManyEntriesAndModulesTakeLinearTime) {
  constexpr int kCount = 100000;
  ConfigClaims claims;
  claims.schemes.emplace_back();
  std::vector<std::string> names;
  for (int i = 0; i < kCount; ++i) {
    names.push_back(fmt::format("model.layers.{}.mlp.experts.{}.up_proj", i % 61, i));
    claims.rules.push_back({names.back(), Matching::kExact, Says::kPlain, 0});
    claims.rules.push_back({"model", Matching::kBelow, Says::kEither, 0});
    claims.rules.push_back({fmt::format("up_proj{}", i), Matching::kSegments, Says::kPlain, 0});
  }
  std::vector<NamedModule> modules;
  for (const std::string& name : names) modules.push_back({name, ModuleClass::kLinear});
  // Quadratic, this would be 3e10 comparisons, and the test's limit of time would be passed by far.
  MatchBudget budget;
  const auto result = MatchClaims(claims, modules, &budget);
  ASSERT_TRUE(result);
  const MatchedClaims& matched = *result;
  EXPECT_EQ(matched.modules[0].says, Says::kPlain);
  EXPECT_EQ(matched.modules[1].says, Says::kEither);
  EXPECT_TRUE(matched.rule_matches[4]);
  EXPECT_FALSE(matched.rule_matches[2]);
}

}  // namespace
}  // namespace quantport
