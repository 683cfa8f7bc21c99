// The recipes that are built in, as text and JSON.
#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "quantport/quantize.h"
#include "recipe/load.h"

namespace quantport {
namespace {

std::vector<RecipeInfo> Infos(std::vector<RecipeSummary> summaries) {
  std::vector<RecipeInfo> infos;
  for (RecipeSummary& summary : summaries)
    infos.push_back({std::move(summary.name), std::move(summary.description), std::move(summary.refused)});
  return infos;
}

std::string Lines(const std::vector<RecipeInfo>& infos) {
  size_t width = 0;
  for (const RecipeInfo& info : infos) width = std::max(width, info.name.size());
  std::string out;
  for (const RecipeInfo& info : infos) {
    out += fmt::format("  {:<{}}  {}{}\n", info.name, width, info.description,
                       info.refused.empty() ? "" : fmt::format(" (refused: {})", info.refused));
  }
  return out;
}

Json List(const std::vector<RecipeInfo>& infos) {
  Json list = Json::array();
  for (const RecipeInfo& info : infos) {
    list.push_back({{"name", info.name},
                    {"description", info.description},
                    {"refused", info.refused.empty() ? Json(nullptr) : Json(info.refused)}});
  }
  return list;
}

}  // namespace

std::vector<RecipeInfo> BuiltInRecipeInfos() { return Infos(ListRecipes()); }

std::vector<RecipeInfo> BuiltInKvCacheInfos() { return Infos(ListKvCaches()); }

std::string RecipesText() {
  return "--recipe\n" + Lines(BuiltInRecipeInfos()) + "--kv-cache\n" + Lines(BuiltInKvCacheInfos()) +
         "  none  the KV cache stays as it is\n";
}

std::string RecipesJson() {
  Json json = Json::object();
  json["recipes"] = List(BuiltInRecipeInfos());
  json["kv_caches"] = List(BuiltInKvCacheInfos());
  return DumpJson(json);
}

}  // namespace quantport
