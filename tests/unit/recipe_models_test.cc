// Recipes resolved on the modules of tiny models, held to what ModelOpt's own mtq.quantize set and its export wrote.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/text.h"
#include "dialect/modelopt_files.h"
#include "dialect/modelopt_formats.h"
#include "recipe/load.h"
#include "recipe/resolve.h"
#include "support/source_dir.h"

namespace quantport {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string Folder() { return test::SourceDir() + "/tests/golden/quantize"; }

Json ReadGolden(const std::string& path) { return Json::parse(ReadText(Folder() + "/" + path)); }

RecipeSources Sources() {
  RecipeSources sources;
  sources.read = [](const std::string& path) -> Result<std::optional<std::string>> {
    if (!std::filesystem::is_regular_file(path)) return std::optional<std::string>();
    return std::optional<std::string>(ReadText(path));
  };
  sources.folders = {Folder()};
  return sources;
}

QuantizableModule ModuleOf(const Json& json) {
  QuantizableModule module;
  module.name = json.at("name");
  module.class_name = json.at("class");
  const std::string kind = json.at("kind");
  if (kind == "attention") module.kind = ModuleKind::kAttention;
  if (kind == "input") module.kind = ModuleKind::kInputOnly;
  if (kind == "weighted" && module.class_name == "Embedding") module.kind = ModuleKind::kEmbedding;
  if (kind == "weighted" && module.class_name.starts_with("Conv")) module.kind = ModuleKind::kConvolution;
  if (kind == "batched_experts") module.kind = ModuleKind::kBatchedExperts;
  if (kind == "fused_experts") {
    module.kind = ModuleKind::kFusedExperts;
    module.experts = json.at("experts");
    module.gated = json.at("first_projection") == "gate_up_proj";
  }
  return module;
}

bool HasWeight(const ResolvedModule& module) {
  return module.Find("weight_quantizer") != nullptr || module.module.kind == ModuleKind::kFusedExperts ||
         module.module.kind == ModuleKind::kBatchedExperts;
}

std::vector<QuantizableModule> ModulesOf(const Json& checkpoint) {
  std::vector<QuantizableModule> modules;
  for (const Json& module : checkpoint.at("modules")) modules.push_back(ModuleOf(module));
  return modules;
}

// Bits as the goldens write them.
Json Bits(const NumberBits& bits) {
  return bits.IsFloat() ? Json::array({bits.exponent, bits.mantissa}) : Json(bits.integer);
}

nlohmann::json Setting(const QuantizerAttributes& attributes) {
  Json json = {{"num_bits", Bits(attributes.num_bits)},
               {"axis", nullptr},
               {"block_sizes", nullptr},
               {"dynamic", attributes.dynamic},
               {"constant_amax", nullptr},
               {"use_constant_amax", attributes.use_constant_amax}};
  if (!attributes.axis.empty()) json["axis"] = attributes.axis[0];
  if (attributes.constant_amax) json["constant_amax"] = *attributes.constant_amax;
  if (attributes.block_sizes) json["block_sizes"] = ToJson(attributes)["block_sizes"];
  return nlohmann::json::parse(json.dump());
}

nlohmann::json Settings(const Json& golden) {
  nlohmann::json list = nlohmann::json::parse(golden.dump());
  for (nlohmann::json& setting : list) {
    nlohmann::json& blocks = setting["block_sizes"];
    if (blocks.is_object() && !blocks.contains("type")) blocks["type"] = "static";
    if (blocks.is_object() && blocks.contains("four_over_six")) blocks["four_over_six"] = true;
    if (setting["constant_amax"].is_number()) setting["constant_amax"] = setting["constant_amax"].get<double>();
  }
  return list;
}

// Every enabled quantizer by ModelOpt's name, experts numbered.
std::map<std::string, nlohmann::json> Enabled(const ResolvedRecipe& model) {
  std::map<std::string, nlohmann::json> enabled;
  for (const ResolvedModule& module : model.modules) {
    for (const ResolvedQuantizer& quantizer : module.quantizers) {
      if (!quantizer.enabled) continue;
      nlohmann::json settings = nlohmann::json::array();
      for (const QuantizerAttributes& attributes : *quantizer.attributes) settings.push_back(Setting(attributes));
      const std::string name = JoinName(module.module.name, quantizer.name);
      if (!name.ends_with("_quantizers")) enabled[name] = settings;
      for (int i = 0; name.ends_with("_quantizers") && i < module.module.experts; ++i)
        enabled[name + "." + std::to_string(i)] = settings;
    }
  }
  return enabled;
}

// What ModelOpt's renaming does to module names of these models.
std::string HubName(const std::string& model, std::string name) {
  if (model == "mixtral") return ReplaceFirst(name, ".mlp.", ".block_sparse_moe.");
  if (model != "minimax_m3") return name;
  if (name == "lm_head") return "language_model.lm_head";
  if (name.starts_with("model.language_model.")) name = "language_model.model." + name.substr(21);
  return name.starts_with("language_model.") ? ReplaceFirst(name, ".mlp.", ".block_sparse_moe.") : name;
}

struct Case {
  std::string model;
  std::string recipe;
};

void PrintTo(const Case& golden, std::ostream* out) { *out << golden.model << " " << golden.recipe; }

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const auto& model : std::filesystem::directory_iterator(Folder())) {
    if (!model.is_directory()) continue;
    for (const auto& file : std::filesystem::directory_iterator(model)) {
      const std::string recipe = file.path().stem();
      if (file.path().extension() == ".json" && recipe != "checkpoint")
        cases.push_back({model.path().filename(), recipe});
    }
  }
  std::sort(cases.begin(), cases.end(),
            [](const Case& a, const Case& b) { return std::tie(a.model, a.recipe) < std::tie(b.model, b.recipe); });
  return cases;
}

class RecipeModelsTest : public testing::TestWithParam<Case> {
 protected:
  Json golden() const { return ReadGolden(GetParam().model + "/" + GetParam().recipe + ".json"); }
  Json checkpoint() const { return ReadGolden(GetParam().model + "/checkpoint.json"); }

  Result<ResolvedRecipe> Resolve() const {
    const auto recipe = LoadRecipe(GetParam().recipe, Sources());
    if (!recipe) return recipe.errors();
    return ResolveQuantizers(*recipe, ModulesOf(checkpoint()));
  }
};

TEST_P(RecipeModelsTest, SetsEveryQuantizerAsModelOptDoes) {
  const Json golden = this->golden();
  const auto model = Resolve();
  const std::string error = golden.value("error", std::string());
  if (error.find("nothing would be quantized") != std::string::npos) {
    ASSERT_FALSE(model.ok());
    EXPECT_THAT(model.errors().front().message, testing::HasSubstr("would quantize no weight"));
    return;
  }
  if (GetParam().recipe == "mxint8" || GetParam().recipe == "mxfp6") {  // ModelOpt's export fails on these
    ASSERT_FALSE(error.empty());
    EXPECT_FALSE(model.ok());
    return;
  }
  ASSERT_TRUE(model.ok()) << model.errors().front().ToString();
  std::map<std::string, nlohmann::json> expected;
  for (const auto& [name, setting] : golden.at("quantizers").items())
    expected[name] = Settings(golden.at("settings").at(setting.get<size_t>()));
  EXPECT_EQ(Enabled(*model), expected);
  std::map<std::string, Json> formats;
  for (const ResolvedModule& module : model->modules) {
    if (!HasWeight(module)) continue;
    const std::string_view name = ModelOptFormatName(module.format);
    formats[module.module.name] = Json::array({name.empty() ? Json(nullptr) : Json(name), module.block_size});
  }
  std::map<std::string, Json> expected_formats;
  for (const auto& [name, format] : golden.at("formats").items()) expected_formats[name] = format;
  EXPECT_EQ(formats, expected_formats);
}

TEST_P(RecipeModelsTest, WritesBothConfigFilesAsModelOptDoes) {
  const Json golden = this->golden();
  if (golden.contains("error")) GTEST_SKIP() << golden["error"];
  const Json checkpoint = this->checkpoint();
  const auto model = Resolve();
  ASSERT_TRUE(model.ok()) << model.errors().front().ToString();
  std::vector<QuantizedModule> modules;
  for (const ResolvedModule& module : model->modules) {
    if (HasWeight(module)) modules.push_back({module.module.name, module.format, module.block_size});
  }
  for (const Json& router : checkpoint.at("routers")) modules.push_back({router.get<std::string>()});
  // ModelOpt keeps names as they are in memory where it can't reverse the conversion: its check for unexpanded experts
  // takes the four dimensions of block scales for experts.
  const bool kept = GetParam().recipe == "fp8_2d_blockwise_weight_only";
  const auto hub_name = [&](const std::string& name) { return kept ? name : HubName(GetParam().model, name); };
  const Json config = HfQuantConfig(modules, model->kv_cache, hub_name);
  EXPECT_EQ(DumpJson(config, kModelOptStyle), golden.at("hf_quant_config.json").get<std::string>());
  const auto text = WithQuantizationConfig(checkpoint.at("config"), "config.json", QuantizationConfig(config));
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text, golden.at("config.json").get<std::string>());
}

INSTANTIATE_TEST_SUITE_P(Goldens, RecipeModelsTest, testing::ValuesIn(Cases()), [](const auto& golden) {
  std::string name = golden.param.model + "_" + golden.param.recipe;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace quantport
