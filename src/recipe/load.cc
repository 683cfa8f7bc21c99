#include "recipe/load.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "recipe/attributes.h"
#include "recipe/builtin_data.h"
#include "recipe/imports.h"

namespace quantport {
namespace {

constexpr std::string_view kModelPresets = "configs/ptq/presets/model/";
constexpr std::string_view kKvPresets = "configs/ptq/presets/kv/";

// Whether a file is a preset: algorithm and quant_cfg at its top.
bool IsPreset(const RecipeFile& file) {
  const auto documents = ParseYaml(file.text, file.path);
  if (!documents) throw RecipeProblem{documents.errors().front()};
  return std::any_of(documents->begin(), documents->end(), [](const YamlValue& document) {
    return document.Find("quant_cfg") != nullptr && document.Find("metadata") == nullptr;
  });
}

void ReadQuantize(const YamlValue& quantize, Recipe* recipe) {
  CheckAgainstSchema(quantize, {SchemaType::kQuantize, {}});
  const YamlValue* entries = quantize.Find("quant_cfg");
  if (entries == nullptr) Fail(quantize, "no quant_cfg, so nothing says what to quantize");
  recipe->entries = ParseEntries(*entries);
  if (const YamlValue* algorithm = quantize.Find("algorithm")) {
    recipe->algorithms = ParseAlgorithms(*algorithm);
  } else {
    recipe->algorithms = {RecipeAlgorithm{"max", Json::object(), *quantize.file}};
  }
}

Error OfAnotherType(std::string_view type, std::string place) {
  return {ErrorKind::kUnsupportedRecipe,
          fmt::format("a recipe of type {}, which needs the model to run", type),
          std::move(place),
          {},
          "recipes of type ptq can be carried out"};
}

[[noreturn]] void RefuseType(const YamlValue& type) {
  throw RecipeProblem{OfAnotherType(Printable(type.text), fmt::format("{}:{}", *type.file, type.line))};
}

void ReadMetadata(const YamlValue& metadata, Recipe* recipe) {
  if (!metadata.IsMap()) Fail(metadata, fmt::format("metadata is {}, not a mapping", Described(metadata)));
  const YamlValue* type = metadata.Find("recipe_type");
  if (type == nullptr || !type->IsString()) Fail(metadata, "metadata without recipe_type");
  if (type->text != "ptq") RefuseType(*type);
  const YamlValue* description = metadata.Find("description");
  if (description != nullptr && description->IsString()) recipe->description = description->text;
  while (!recipe->description.empty() && recipe->description.back() == '\n') recipe->description.pop_back();
}

// What can't be carried out is told by its type, before its other parts are looked at, which are not known here.
void CheckType(const RecipeFile& file) {
  const auto documents = ParseYaml(file.text, file.path);
  if (!documents) return;
  for (const YamlValue& document : *documents) {
    const YamlValue* metadata = document.Find("metadata");
    const YamlValue* type = metadata == nullptr ? nullptr : metadata->Find("recipe_type");
    if (type != nullptr && type->IsString() && type->text != "ptq") RefuseType(*type);
  }
}

// Of ModelOpt's recipes that are not built in, since a folder tells their type: "general/auto_quantize/...".
std::optional<std::string_view> TypeOfPath(const std::string& name) {
  for (const std::string_view type : {"auto_quantize", "speculative_decoding", "distillation"}) {
    if (name.find(fmt::format("/{}/", type)) != std::string::npos || name.starts_with(fmt::format("{}/", type)))
      return type;
  }
  return std::nullopt;
}

const YamlValue& Section(const YamlValue& file, std::string_view name) {
  if (!file.IsMap()) Fail(file, fmt::format("{} where a recipe is expected", Described(file)));
  const YamlValue* section = file.Find(name);
  if (section == nullptr) {
    Fail(file, fmt::format("no {}", name), "a recipe has metadata and quantize, a preset algorithm and quant_cfg");
  }
  return *section;
}

Recipe ReadRecipe(const std::vector<RecipeFile>& files, const RecipeSources& sources) {
  Recipe recipe;
  ImportResolver resolver(sources);
  if (files.size() == 2) {
    ReadMetadata(resolver.Resolve(files[0], {}).value, &recipe);
    ReadQuantize(resolver.Resolve(files[1], {SchemaType::kQuantize, {}}).value, &recipe);
    return recipe;
  }
  CheckType(files[0]);
  if (IsPreset(files[0])) {
    ResolvedFile preset = resolver.Resolve(files[0], {SchemaType::kQuantize, {}});
    ReadQuantize(preset.value, &recipe);
    recipe.description = std::move(preset.description);
    return recipe;
  }
  const ResolvedFile file = resolver.Resolve(files[0], {SchemaType::kRecipe, {}});
  ReadMetadata(Section(file.value, "metadata"), &recipe);
  CheckKeys(file.value, {"metadata", "quantize"}, "a recipe");
  ReadQuantize(Section(file.value, "quantize"), &recipe);
  return recipe;
}

// `named`: of its path, what is not part of a recipe's name.
std::vector<RecipeSummary> ListBelow(std::string_view folder, std::string_view named) {
  std::vector<RecipeSummary> out;
  for (const BuiltInRecipe& file : BuiltInRecipes()) {
    if (!file.path.starts_with(folder)) continue;
    const std::string path(file.path);
    const auto recipe = LoadRecipe(path, {});
    if (!recipe) continue;  // a test reads every built-in recipe
    RecipeSummary summary{path.substr(named.size()), path, recipe->description, {}};
    if (const Status status = CheckAlgorithms(*recipe); !status) summary.refused = status.errors().front().message;
    out.push_back(std::move(summary));
  }
  return out;
}

bool SpeaksOfKvCache(const RecipeEntry& entry) {
  return entry.quantizer_name.ends_with("k_bmm_quantizer") || entry.quantizer_name.ends_with("v_bmm_quantizer") ||
         entry.quantizer_name.ends_with("[kv]_bmm_quantizer");
}

}  // namespace

Result<Recipe> LoadRecipe(const std::string& name, const RecipeSources& sources) {
  auto files = FindRecipe(sources, name);
  if (!files) return files.errors();
  if (files->empty()) {
    if (const auto type = TypeOfPath(name)) return OfAnotherType(*type, Printable(name));
    return Error{ErrorKind::kInvalidRecipe,
                 "no recipe or file of that name",
                 Printable(name),
                 {},
                 "--list-recipes shows those that are built in"};
  }
  try {
    Recipe recipe = ReadRecipe(*files, sources);
    recipe.name = name;
    return recipe;
  } catch (const RecipeProblem& problem) {
    return problem.error;
  }
}

Result<std::vector<RecipeEntry>> LoadKvCache(const std::string& name, const RecipeSources& sources) {
  if (name == "none") {
    RecipeEntry off;
    off.quantizer_name = "*[kv]_bmm_quantizer";
    off.enable = false;
    off.place = "KV cache none";
    return std::vector<RecipeEntry>{off};
  }
  const bool constant = name.ends_with("_KV_CFG") || name.ends_with("_KV_ROTATE_CFG");
  auto preset = LoadRecipe(constant ? name : std::string(kKvPresets) + name, sources);
  if (!preset) return preset.errors();
  return std::move(preset->entries);
}

void ReplaceKvCache(const std::vector<RecipeEntry>& entries, Recipe* recipe) {
  const auto first = std::find_if(recipe->entries.begin(), recipe->entries.end(), SpeaksOfKvCache);
  const auto at = first - recipe->entries.begin();
  recipe->entries.erase(std::remove_if(first, recipe->entries.end(), SpeaksOfKvCache), recipe->entries.end());
  recipe->entries.insert(recipe->entries.begin() + at, entries.begin(), entries.end());
}

std::vector<RecipeSummary> ListRecipes() {
  std::vector<RecipeSummary> out = ListBelow("general/ptq/", "general/ptq/");
  for (RecipeSummary& recipe : ListBelow("general/qad/", "general/")) out.push_back(std::move(recipe));
  for (RecipeSummary& preset : ListBelow(kModelPresets, kModelPresets)) {
    const bool known =
        std::any_of(out.begin(), out.end(), [&](const RecipeSummary& recipe) { return recipe.name == preset.name; });
    if (!known) out.push_back(std::move(preset));
  }
  for (const std::string_view folder : {"huggingface/", "models/"}) {
    for (RecipeSummary& recipe : ListBelow(folder, "")) out.push_back(std::move(recipe));
  }
  return out;
}

std::vector<RecipeSummary> ListKvCaches() { return ListBelow(kKvPresets, kKvPresets); }

}  // namespace quantport
