#include "config/excluded.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "dialect/quantization_json.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

using Names = std::vector<std::string>;

const Names kMtp = {"model.layers.2.eh_proj", "model.layers.2.mlp.experts.0.down_proj", "model.layers.2.norm"};
const Names kQuantized = {"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj",
                          "model.layers.20.mlp.down_proj"};

Json Parsed(const Result<std::string>& text) {
  if (!text) {
    ADD_FAILURE() << text.errors()[0].ToString();
    return {};
  }
  return *ParseJson(*text, "config.json", ErrorKind::kInvalidConfig);
}

Result<std::string> Add(const std::string& text, const Names& modules, const Names& others) {
  MatchBudget budget;
  return AddExcluded(text, "config.json", modules, others, &budget);
}

std::vector<uint32_t> Matches(const Names& names, const std::string& entry) {
  MatchBudget budget;
  return *ModuleNames(names).Matches(entry, MatchingOf(entry, EntrySyntax::kNames), &budget);
}

// The list at `key` of quantization_config after adding.
Names Added(const std::string& method, const std::string& key, const Names& before, const Names& modules,
            const Names& others = kQuantized) {
  const Json config = {{"quantization_config", {{"quant_method", method}, {key, before}}}};
  return Parsed(Add(DumpJson(config), modules, others))["quantization_config"][key].get<Names>();
}

TEST(ExcludedTest, AWholeSubTreeIsOneEntryThatCoversNoOtherLayer) {
  const Names entries = Added("modelopt", "ignore", {"lm_head"}, kMtp);
  EXPECT_THAT(entries, ElementsAre("lm_head", "model.layers.2.*"));
  for (const std::string& entry : entries) EXPECT_THAT(Matches(kQuantized, entry), IsEmpty()) << entry;
  EXPECT_THAT(Matches(kMtp, entries[1]), SizeIs(kMtp.size()));
}

TEST(ExcludedTest, CompressedTensorsGetsARegularExpressionInstead) {
  const Names entries = Added("compressed-tensors", "ignore", {}, kMtp);
  EXPECT_THAT(entries, ElementsAre(R"(re:model\.layers\.2\..*)"));
  EXPECT_THAT(Matches(kQuantized, entries[0]), IsEmpty());
  EXPECT_THAT(Matches(kMtp, entries[0]), SizeIs(kMtp.size()));
}

TEST(ExcludedTest, ATreeOfItsOwnIsNamedByItsRoot) {
  EXPECT_THAT(Added("modelopt", "ignore", {}, {"mtp.layers.0.proj", "mtp.fc"}), ElementsAre("mtp.*"));
}

TEST(ExcludedTest, AModuleBesideQuantizedOnesIsNamedExactly) {
  EXPECT_THAT(Added("modelopt", "ignore", {}, {"model.layers.0.mlp.up_proj", "lm_head"}),
              ElementsAre("lm_head", "model.layers.0.mlp.up_proj"));
  EXPECT_THAT(Added("compressed-tensors", "ignore", {}, {"lm_head"}), ElementsAre("lm_head"));
}

TEST(ExcludedTest, WhatAnEntryCoversIsNotAddedAgain) {
  EXPECT_THAT(Added("modelopt", "ignore", {"model.layers.2*"}, kMtp), ElementsAre("model.layers.2*"));
  EXPECT_THAT(Added("modelopt", "ignore", {"model.layers.2"}, kMtp), ElementsAre("model.layers.2"));
  EXPECT_THAT(Added("modelopt", "ignore", {R"(re:.*layers\.2\..*)"}, kMtp), ElementsAre(R"(re:.*layers\.2\..*)"));
  EXPECT_THAT(Added("modelopt", "ignore", {"model.layers.2.mlp*"}, kMtp),
              ElementsAre("model.layers.2.mlp*", "model.layers.2.*"));
}

TEST(ExcludedTest, EveryListOfWhatIsLeftAloneGetsTheEntries) {
  for (const std::string key :
       {"exclude_modules", "ignore", "modules_to_not_convert", "ignored_layers", "llm_int8_skip_modules", "exclude"})
    EXPECT_THAT(Added("x", key, {"a"}, {"mtp.fc"}), ElementsAre("a", "mtp.*")) << key;
  for (const std::string key : {"modules_to_convert", "modules_in_block_to_quantize"})
    EXPECT_THAT(Added("x", key, {"a"}, {"mtp.fc"}), ElementsAre("a")) << key;
}

TEST(ExcludedTest, TheTextStaysWhereThereIsNothingToAdd) {
  for (const std::string text :
       {R"({"quantization_config":  {"quant_method": "modelopt"}})", R"({"a":   1})",
        R"({"quantization_config":  {"ignore": null}})", R"({"quantization_config":  {"ignore": ["mtp*", 3]}})"}) {
    const auto added = Add(text, {"mtp.fc"}, {});
    ASSERT_TRUE(added.ok()) << text;
    EXPECT_EQ(*added, text);
  }
}

TEST(ExcludedTest, StyleAndOtherEntriesStay) {
  const auto added =
      Add("{\n    \"quantization\": {\"exclude_modules\": [7, \"a\"]},\n    \"x\": 1\n}", {"mtp.fc"}, {});
  ASSERT_TRUE(added.ok());
  EXPECT_THAT(*added, HasSubstr("\n    \"quantization\""));
  EXPECT_FALSE(added->ends_with("\n"));
  EXPECT_EQ(Parsed(added), Json::parse(R"({"quantization": {"exclude_modules": [7, "a", "mtp.*"]}, "x": 1})"));
}

TEST(ExcludedTest, TextThatIsNoObjectIsAnErrorNamingTheFile) {
  EXPECT_THAT(ErrorLines(Add("{", {"a"}, {})), ElementsAre(HasSubstr("invalid JSON")));
  const auto list = Add("[]", {"a"}, {});
  ASSERT_FALSE(list.ok());
  EXPECT_EQ(list.errors()[0].file, "config.json");
  EXPECT_THAT(ErrorLines(list), ElementsAre("InvalidConfigError not a JSON object"));
}

// What is left of the list "ignore" once `quantized` is not excluded any more.
Names Dropped(const std::string& method, const Names& before, const Names& quantized, const Names& others) {
  const Json config = {{"quantization_config", {{"quant_method", method}, {"ignore", before}}}};
  MatchBudget budget;
  return Parsed(
             DropExcluded(DumpJson(config), "config.json", quantized, others, &budget))["quantization_config"]["ignore"]
      .get<Names>();
}

TEST(DropExcludedTest, AnEntryStandsForWhatIsPlainOfWhatItCovered) {
  const Names quantized = {"model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"};
  const Names plain = {"lm_head", "model.layers.0.mlp.gate", "model.layers.0.self_attn.q_proj"};
  EXPECT_THAT(Dropped("modelopt", {"lm_head", "model.layers.0.mlp*"}, quantized, plain),
              ElementsAre("lm_head", "model.layers.0.mlp.gate"));
  EXPECT_THAT(Dropped("modelopt", {"model.layers.0.mlp.up_proj", "lm_head"}, quantized, plain), ElementsAre("lm_head"));
  EXPECT_THAT(Dropped("compressed-tensors", {"re:model.layers.0.*"}, quantized, plain),
              ElementsAre("model.layers.0.mlp.gate", "re:model\\.layers\\.0\\.self_attn\\..*"));
}

TEST(DropExcludedTest, AListWithoutSuchEntriesStaysAsItIs) {
  EXPECT_THAT(Dropped("modelopt", {"lm_head", "*router*"}, {"model.layers.0.mlp.up_proj"}, {"lm_head"}),
              ElementsAre("lm_head", "*router*"));
}

TEST(QuantizationJsonTest, EveryPlaceOfAQuantizationIsFound) {
  Json config = Json::parse(R"({"quantization_config": {"at": 1}, "compression_config": {"at": 2},
                               "quantization": {"at": 3}, "text_config": {"quantization_config": {"at": 4}},
                               "vision_config": {"quantization_config": {"at": 5}}})");
  std::vector<int> places;
  for (const Json* found : FindQuantizations(&config)) places.push_back((*found)["at"].get<int>());
  EXPECT_THAT(places, ElementsAre(1, 2, 3, 4));
}

TEST(QuantizationJsonTest, WhatIsNoObjectIsNoQuantization) {
  Json config = Json::parse(R"({"quantization_config": null, "quantization": "int4", "text_config": []})");
  EXPECT_THAT(FindQuantizations(&config), IsEmpty());
}

TEST(QuantizationJsonTest, TheObjectsFoundAreThoseOfTheConfig) {
  Json config = Json::parse(R"({"quantization_config": {}})");
  (*FindQuantizations(&config).at(0))["ignore"] = {"a"};
  EXPECT_EQ(config.dump(), R"({"quantization_config":{"ignore":["a"]}})");
}

}  // namespace
}  // namespace quantport
