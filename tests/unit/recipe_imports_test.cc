// Imports, lookup and what is wrong in a recipe: every error names the file and line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "recipe/load.h"

namespace quantport {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kAttributes = "# modelopt-schema: modelopt.torch.quantization.config.QuantizerAttributeConfig\n";
constexpr const char* kEntry = "# modelopt-schema: modelopt.torch.quantization.config.QuantizerCfgEntry\n";
constexpr const char* kList = "# modelopt-schema: modelopt.torch.quantization.config.QuantizerCfgListConfig\n";
constexpr const char* kMetadata = "metadata: {recipe_type: ptq}\n";

class RecipeImportsTest : public testing::Test {
 protected:
  void Put(const std::string& path, const std::string& text) { files_[path] = text; }

  RecipeSources Sources() {
    RecipeSources sources;
    sources.read = [this](const std::string& path) -> Result<std::optional<std::string>> {
      const auto it = files_.find(std::filesystem::path(path).lexically_normal());
      if (it == files_.end()) return std::optional<std::string>();
      return std::optional<std::string>(it->second);
    };
    sources.folders = folders_;
    return sources;
  }

  Result<Recipe> Load(const std::string& name) { return LoadRecipe(name, Sources()); }

  // A recipe whose quant_cfg and imports are as given.
  Result<Recipe> LoadWith(const std::string& imports, const std::string& entries) {
    Put("r.yaml", std::string(kMetadata) + imports + "quantize:\n  quant_cfg:\n" + entries);
    return Load("r");
  }

  // The one error of a file, "place: message".
  std::string ErrorOf(const Result<Recipe>& recipe) {
    if (recipe.ok()) return "no error";
    return recipe.errors().front().file + ": " + recipe.errors().front().message;
  }

  std::map<std::string, std::string> files_;
  std::vector<std::string> folders_;
};

std::vector<std::string> Names(const Recipe& recipe) {
  std::vector<std::string> names;
  for (const RecipeEntry& entry : recipe.entries) names.push_back(entry.quantizer_name);
  return names;
}

TEST_F(RecipeImportsTest, AListSplicesAndAnEntryIsAppended) {
  Put("one.yaml", std::string(kEntry) + "{quantizer_name: one, enable: false}\n");
  Put("two.yml",
      std::string(kList) + "imports: {one: one}\n---\n- $import: one\n- {quantizer_name: two, enable: false}\n");
  const auto recipe = LoadWith("imports: {one: one, two: two}\n", "  - $import: two\n  - $import: one\n");
  ASSERT_TRUE(recipe.ok()) << ErrorOf(recipe);
  EXPECT_THAT(Names(*recipe), ElementsAre("one", "two", "one"));
}

TEST_F(RecipeImportsTest, KeysBesideAnImportReplaceWholeValues) {
  Put("a.yaml", std::string(kAttributes) + "num_bits: E2M1\nblock_sizes: {-1: 16, type: dynamic, scale_bits: e4m3}\n");
  Put("b.yaml", std::string(kAttributes) + "{num_bits: e4m3, unsigned: true}\n");
  const auto recipe =
      LoadWith("imports: {a: a, b: b}\n",
               "  - {quantizer_name: w, cfg: {$import: [b, a], block_sizes: {-1: 32, type: dynamic}}}\n");
  ASSERT_TRUE(recipe.ok()) << ErrorOf(recipe);
  const QuantizerAttributes& attributes = recipe->entries[0].cfg[0];
  EXPECT_EQ(attributes.num_bits, NumberBits::Float(2, 1));
  EXPECT_TRUE(attributes.unsigned_range);
  EXPECT_EQ(attributes.block_sizes->axes.at(-1), 32);
  EXPECT_FALSE(attributes.block_sizes->scale_bits);
}

TEST_F(RecipeImportsTest, TheFileSystemComesFirstForImportsAndTheLibraryForRecipes) {
  Put("configs/numerics/fp8.yaml", std::string(kAttributes) + "num_bits: 8\naxis: 0\n");
  Put("general/ptq/fp8_default-kv_fp8.yaml", "not: a recipe\n");
  const auto recipe = Load("fp8_default-kv_fp8");
  ASSERT_TRUE(recipe.ok()) << ErrorOf(recipe);
  EXPECT_EQ(recipe->entries[1].cfg[0].axis, std::vector<int>{0});
  EXPECT_TRUE(Load("general/ptq/fp8_default-kv_fp8.yaml").ok());
}

TEST_F(RecipeImportsTest, AFolderOfTheUsersComesBeforeTheLibrary) {
  folders_ = {"mine"};
  Put("mine/general/ptq/nvfp4_default-kv_fp8.yaml",
      std::string(kMetadata) +
          "imports: {n: numbers}\nquantize: {quant_cfg: [{quantizer_name: x, cfg: {$import: n}}]}\n");
  Put("mine/numbers.yaml", std::string(kAttributes) + "num_bits: 8\n");
  const auto recipe = Load("nvfp4_default-kv_fp8");
  ASSERT_TRUE(recipe.ok()) << ErrorOf(recipe);
  EXPECT_THAT(Names(*recipe), ElementsAre("x"));
}

TEST_F(RecipeImportsTest, AFolderOfMetadataAndQuantizeIsARecipe) {
  Put("r/metadata.yml", "recipe_type: ptq\ndescription: from a folder\n");
  Put("r/quantize.yaml",
      "algorithm: {method: mse, fp8_scale_sweep: true}\nquant_cfg: [{quantizer_name: x, enable: true}]\n");
  const auto recipe = Load("r");
  ASSERT_TRUE(recipe.ok()) << ErrorOf(recipe);
  EXPECT_EQ(recipe->description, "from a folder");
  EXPECT_EQ(recipe->algorithms[0].method, "mse");
}

TEST_F(RecipeImportsTest, ACircleOfImportsIsAnError) {
  Put("a.yaml", std::string(kList) + "imports: {b: ./b}\n---\n- $import: b\n");
  Put("b.yaml", std::string(kList) + "imports:\n  a: a.yaml\n---\n- $import: a\n");
  EXPECT_THAT(ErrorOf(LoadWith("imports: {a: a}\n", "  - $import: a\n")),
              HasSubstr("b.yaml:3: a circle of imports: a.yaml"));
}

TEST_F(RecipeImportsTest, WhatIsNotThereIsNamedWithItsPlace) {
  EXPECT_THAT(ErrorOf(LoadWith("imports:\n  a: nowhere\n", "  - $import: a\n")),
              HasSubstr("r.yaml:3: no file \"nowhere\""));
  EXPECT_THAT(ErrorOf(LoadWith("", "  - $import: a\n")), HasSubstr("r.yaml:4: $import of \"a\", which is no name"));
  EXPECT_THAT(ErrorOf(Load("absent")), HasSubstr("no recipe or file of that name"));
}

TEST_F(RecipeImportsTest, AnImportedFileNeedsItsTypeAndFitsIt) {
  Put("a.yaml", "num_bits: 8\n");
  const std::string entries = "  - {quantizer_name: x, cfg: {$import: a}}\n";
  EXPECT_THAT(ErrorOf(LoadWith("imports: {a: a}\n", entries)),
              HasSubstr("a.yaml:1: an imported file without a modelopt-schema"));
  Put("a.yaml", "# modelopt-schema: os.system\nnum_bits: 8\n");
  EXPECT_THAT(ErrorOf(LoadWith("imports: {a: a}\n", entries)),
              HasSubstr("a.yaml:1: the modelopt-schema os.system lies outside"));
  Put("a.yaml", std::string(kAttributes) + "\nnum_bitz: 8\n");
  EXPECT_THAT(ErrorOf(LoadWith("imports: {a: a}\n", entries)),
              HasSubstr("a.yaml:3: quantizer attributes have no field \"num_bitz\""));
  Put("a.yaml", std::string(kAttributes) + "num_bits: 8\n");
  EXPECT_THAT(ErrorOf(LoadWith("imports: {a: a}\n", "  - $import: a\n")),
              HasSubstr("r.yaml:5: $import of \"a\", quantizer attributes, into a list whose"));
}

TEST_F(RecipeImportsTest, EntriesThatModelOptRefusesAreRefused) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"{quantizer_name: x}", "neither cfg nor enable"},
      {"{enable: true}", "without quantizer_name"},
      {"{quantizer_name: x, cfg: {}}", "an empty cfg"},
      {"{quantizer_name: x, cfg: [{}]}", "an empty cfg"},
      {"{quantizer_name: x, cfg: {enable: true}}", "says nothing"},
      {"{quantizer_name: x, cfg: {num_bits: 0}}", "not a positive number"},
      {"{quantizer_name: x, cfg: {num_bits: e9m9}}", "no known format"},
      {"{quantizer_name: x, cfg: {num_bits: e3m2}}", "without block_sizes of type dynamic"},
      {"{quantizer_name: x, cfg: {num_bits: fp8}}", "neither a number of bits nor a format"},
      {"{quantizer_name: x, cfg: {axis: 0, block_sizes: {-1: 16}}}", "axis and block_sizes"},
      {"{quantizer_name: x, cfg: {block_sizes: {-1: 16, -2: 16, type: dynamic}}}", "over more or less than one axis"},
      {"{quantizer_name: x, cfg: {constant_amax: 0.0}}", "constant_amax is not positive"},
      {"{quantizer_name: x, cfg: {constant_amax: 1.5, use_constant_amax: true}}", "in one quantizer"},
      {"{quantizer_name: x, cfg: {type: sometimes}}", "not static or dynamic"},
      {"{quantizer_name: x, enabled: true, enable: true}", "no field \"enabled\""},
  };
  for (const auto& [entry, said] : wrong) {
    const std::string error = ErrorOf(LoadWith("", "  - " + entry + "\n"));
    EXPECT_THAT(error, HasSubstr(said)) << entry;
    EXPECT_THAT(error, HasSubstr("r.yaml:4: ")) << entry;
  }
}

TEST_F(RecipeImportsTest, ADisabledEntryMayHaveAnEmptyCfg) {
  const auto recipe = LoadWith("", "  - {quantizer_name: x, cfg: {}, enable: false}\n");
  ASSERT_TRUE(recipe.ok()) << ErrorOf(recipe);
  EXPECT_TRUE(recipe->entries[0].cfg.empty());
}

TEST_F(RecipeImportsTest, AlgorithmsHaveThreeForms) {
  const std::string tail = "\n  quant_cfg: [{quantizer_name: x, enable: false}]\n";
  const auto method = [&](const std::string& algorithm) {
    Put("r.yaml", std::string(kMetadata) + "quantize:\n" + algorithm + tail);
    const auto recipe = Load("r");
    return recipe.ok() ? recipe->algorithms.front().method : ErrorOf(recipe);
  };
  EXPECT_EQ(method("  algorithm:"), "");
  EXPECT_EQ(method("  algorithm: mse"), "mse");
  EXPECT_EQ(method("  algorithm: {method: gptq, layerwise: {enable: true}}"), "gptq");
  EXPECT_EQ(method("  # none"), "max");
}

TEST_F(RecipeImportsTest, RecipesOfOtherTypesAreUnsupported) {
  Put("r.yaml", "metadata: {recipe_type: auto_quantize}\nquantize: {quant_cfg: []}\n");
  const auto recipe = Load("r");
  ASSERT_FALSE(recipe.ok());
  EXPECT_EQ(recipe.errors().front().kind, ErrorKind::kUnsupportedRecipe);
}

TEST_F(RecipeImportsTest, TheKvCacheIsReplacedWhereTheRecipeSpokeOfIt) {
  auto recipe = Load("fp8_default-kv_fp8_cast");
  ASSERT_TRUE(recipe.ok());
  const size_t entries = recipe->entries.size();
  const auto kv = LoadKvCache("nvfp4_cast", Sources());
  ASSERT_TRUE(kv.ok());
  ReplaceKvCache(*kv, &*recipe);
  EXPECT_EQ(recipe->entries.size(), entries);
  EXPECT_EQ(recipe->entries[3].quantizer_name, "*[kv]_bmm_quantizer");
  EXPECT_EQ(recipe->entries[3].cfg[0].num_bits, NumberBits::Float(2, 1));
  const auto none = LoadKvCache("none", Sources());
  ReplaceKvCache(*none, &*recipe);
  EXPECT_FALSE(recipe->entries[3].enable);
  EXPECT_FALSE(LoadKvCache("fp7", Sources()).ok());
}

TEST_F(RecipeImportsTest, AliasBombsDepthAndSizeAreBounded) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) bomb += (j == 0 ? "*a" : ", *a") + std::to_string(i - 1);
    bomb += "]\n";
  }
  Put("r.yaml", bomb);
  EXPECT_THAT(ErrorOf(Load("r")), HasSubstr("more than 100000 values"));
  Put("r.yaml", "a: " + std::string(5000, '[') + std::string(5000, ']') + "\n");
  EXPECT_THAT(ErrorOf(Load("r")), HasSubstr("nested deeper than 64"));
  Put("r.yaml", std::string((1 << 20) + 1, ' '));
  EXPECT_THAT(ErrorOf(Load("r")), HasSubstr("larger than"));
  Put("r.yaml", "a: &a [*a]\n");
  EXPECT_THAT(ErrorOf(Load("r")), HasSubstr("r.yaml:1: "));
}

TEST_F(RecipeImportsTest, ImportsThatMultiplyAreBounded) {
  Put("l0.yaml", std::string(kList) + "- {quantizer_name: x, enable: false}\n");
  for (int i = 1; i < 30; ++i) {
    std::string text = std::string(kList) + "imports: {a: l" + std::to_string(i - 1) + "}\n---\n";
    for (int j = 0; j < 10; ++j) text += "- $import: a\n";
    Put("l" + std::to_string(i) + ".yaml", text);
  }
  EXPECT_THAT(ErrorOf(LoadWith("imports: {a: l29}\n", "  - $import: a\n")), HasSubstr("more than 1000000 values"));
}

TEST_F(RecipeImportsTest, ScalarsAreThoseOfPyYaml) {
  const auto recipe =
      LoadWith("",
               "  - {quantizer_name: 'on', enable: off}\n  - {quantizer_name: x, cfg: {num_bits: 0x8, axis: ~, "
               "unsigned: Yes, constant_amax: 2_688.0}, enable: on}\n");
  ASSERT_TRUE(recipe.ok()) << ErrorOf(recipe);
  EXPECT_EQ(recipe->entries[0].quantizer_name, "on");
  EXPECT_FALSE(recipe->entries[0].enable);
  EXPECT_TRUE(recipe->entries[1].cfg[0].unsigned_range);
  EXPECT_EQ(recipe->entries[1].cfg[0].constant_amax, 2688.0);
  EXPECT_THAT(ErrorOf(LoadWith("", "  - {quantizer_name: x, cfg: {constant_amax: 1e5}}\n")),
              HasSubstr("\"1e5\", not a number"));
  EXPECT_THAT(ErrorOf(LoadWith("", "  - {quantizer_name: !!python/name:os.system x, enable: false}\n")),
              HasSubstr("the tag"));
}

}  // namespace
}  // namespace quantport
