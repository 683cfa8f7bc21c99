// Every built-in recipe and preset is what ModelOpt's own one of that name says, by ModelOpt's own reading of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "recipe/builtin_data.h"
#include "recipe/load.h"
#include "support/source_dir.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Json Goldens() {
  return Json::parse(ReadText(test::SourceDir() + "/tests/golden/quantize/recipes.json")).at("recipes");
}

std::string PathOf(const std::string& golden) {
  const std::string group = golden.substr(0, golden.find('/'));
  const std::string name = golden.substr(golden.find('/') + 1);
  if (group == "model" || group == "kv") return "configs/ptq/presets/" + group + "/" + name;
  return group == "general" && name.find('/') == std::string::npos ? "general/ptq/" + name : golden;
}

// Without what ModelOpt's dump says of defaults; both sides go through it. Sorted keys.
nlohmann::json Plain(const Json& recipe) {
  nlohmann::json out = nlohmann::json::parse(recipe.dump());
  nlohmann::json& algorithm = out["algorithm"];
  if (!recipe.contains("algorithm")) algorithm = "max";
  if (algorithm.is_object()) {
    if (algorithm.value("layerwise", nlohmann::json::object()) == nlohmann::json{{"enable", false}})
      algorithm.erase("layerwise");
    if (algorithm.size() == 1) algorithm = nlohmann::json(algorithm["method"]);
  }
  for (nlohmann::json& entry : out["quant_cfg"]) {
    if (!entry.contains("cfg")) continue;
    nlohmann::json list = entry["cfg"].is_array() ? entry["cfg"] : nlohmann::json::array({entry["cfg"]});
    for (nlohmann::json& cfg : list) {
      if (cfg.contains("block_sizes") && !cfg["block_sizes"].contains("type")) cfg["block_sizes"]["type"] = "static";
      if (cfg.contains("block_sizes") && cfg["block_sizes"].contains("four_over_six"))
        cfg["block_sizes"]["four_over_six"] = true;
      if (cfg.contains("rotate") && cfg["rotate"].is_object()) cfg["rotate"] = cfg["rotate"]["enable"];
    }
    entry["cfg"] = list;
  }
  return out;
}

TEST(RecipeGoldensTest, EveryRecipeOfModelOptIsCarriedAndReadsAsThere) {
  const Json goldens = Goldens();
  EXPECT_EQ(goldens.size(), 95u);
  for (const auto& [name, golden] : goldens.items()) {
    const auto recipe = LoadRecipe(PathOf(name), {});
    ASSERT_TRUE(recipe.ok()) << name << ": " << recipe.errors().front().ToString();
    EXPECT_EQ(Plain(ToJson(*recipe)), Plain(golden)) << name;
  }
}

TEST(RecipeGoldensTest, EveryRecipeSaysInOneLineWhatItDoes) {
  const auto recipes = ListRecipes();
  EXPECT_GE(recipes.size(), 50u);
  for (const RecipeSummary& recipe : recipes) {
    EXPECT_FALSE(recipe.description.empty()) << recipe.path;
    EXPECT_EQ(recipe.description.find('\n'), std::string::npos) << recipe.path;
    EXPECT_LE(recipe.description.size(), 140u) << recipe.path;
  }
  EXPECT_EQ(ListKvCaches().size(), 7u);
}

TEST(RecipeGoldensTest, RecipesThatNeedActivationsAreRefusedByNameAndReason) {
  std::set<std::string> refused;
  for (const RecipeSummary& recipe : ListRecipes()) {
    if (recipe.refused.empty()) continue;
    EXPECT_THAT(recipe.refused, testing::HasSubstr("needs activations")) << recipe.name;
    refused.insert(recipe.name);
  }
  EXPECT_THAT(refused,
              testing::ElementsAre(
                  "huggingface/gemma/ptq/int8_sq-kv_fp8_cast", "huggingface/gemma/ptq/w4a8_awq-kv_fp8_cast",
                  "huggingface/gemma4/ptq/w4a8_awq-kv_fp8_cast", "huggingface/mpt/ptq/w4a8_awq-kv_fp8_cast", "int4_awq",
                  "int8_smoothquant", "nvfp4_act_headroom-kv_fp8_cast", "nvfp4_awq_clip", "nvfp4_awq_full",
                  "nvfp4_awq_lite", "nvfp4_default-kv_none-gptq", "nvfp4_svdquant", "nvfp4_w4a4_weight_local_hessian",
                  "qad/nvfp4_dual_lsq-mse_init-fp8_kv", "qad/nvfp4_lsq-mse_init-fp8_kv", "w4a8_awq_beta"));
}

// A whole recipe library of ModelOpt's, where one is at hand: its own files, read and compared.
TEST(RecipeGoldensTest, ModelOptsOwnFilesReadAsThere) {
  const char* library = std::getenv("QUANTPORT_MODELOPT_RECIPES");
  if (library == nullptr) GTEST_SKIP() << "QUANTPORT_MODELOPT_RECIPES names no folder";
  RecipeSources sources;
  sources.read = [](const std::string& path) -> Result<std::optional<std::string>> {
    if (!std::filesystem::is_regular_file(path)) return std::optional<std::string>();
    return std::optional<std::string>(ReadText(path));
  };
  sources.folders = {library};
  const Json goldens = Goldens();
  for (const auto& [name, golden] : goldens.items()) {
    const auto recipe = LoadRecipe(PathOf(name), sources);
    ASSERT_TRUE(recipe.ok()) << name << ": " << recipe.errors().front().ToString();
    EXPECT_EQ(Plain(ToJson(*recipe)), Plain(golden)) << name;
    EXPECT_THAT(recipe->entries.front().place, testing::StartsWith(library));
  }
}

}  // namespace
}  // namespace quantport
