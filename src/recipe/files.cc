#include "recipe/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/text.h"
#include "recipe/builtin_data.h"

namespace quantport {
namespace {

using Found = Result<std::optional<RecipeFile>>;

constexpr std::array<std::string_view, 4> kInLibrary = {"", "general/ptq/", "configs/ptq/presets/model/", "general/"};

bool HasSuffix(std::string_view name) { return name.ends_with(".yml") || name.ends_with(".yaml"); }

std::vector<std::string> WithSuffixes(const std::string& name) {
  if (HasSuffix(name)) return {name};
  return {name + ".yml", name + ".yaml"};
}

Found ReadFile(const RecipeSources& sources, const std::string& path) {
  if (!sources.read || path.find('\0') != std::string::npos) return std::optional<RecipeFile>();
  auto text = sources.read(path);
  if (!text) return text.errors();
  if (!*text) return std::optional<RecipeFile>();
  return std::optional<RecipeFile>({std::filesystem::path(path).lexically_normal().string(), std::move(**text)});
}

Found ReadFirst(const RecipeSources& sources, const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    auto found = ReadFile(sources, path);
    if (!found || *found) return found;
  }
  return std::optional<RecipeFile>();
}

std::optional<RecipeFile> BuiltIn(std::string_view name) {
  if (name.ends_with(".yaml")) name.remove_suffix(5);
  if (name.ends_with(".yml")) name.remove_suffix(4);
  const std::string path = std::filesystem::path(name).lexically_normal().string();
  for (const BuiltInRecipe& recipe : BuiltInRecipes()) {
    if (recipe.path == path) return RecipeFile{fmt::format("built-in:{}.yaml", recipe.path), std::string(recipe.text)};
  }
  return std::nullopt;
}

// The name in the library of what modelopt.torch.quantization has as a constant: NVFP4_DEFAULT_CFG, FP8_KV_CFG.
// Empty: the name is no such constant's.
std::string OfConstant(std::string name) {
  for (const std::string_view suffix : {"_CFG", "_CONFIG"}) {
    if (!name.ends_with(suffix)) continue;
    name.resize(name.size() - suffix.size());
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    if (name.ends_with("_default")) name.resize(name.size() - std::string_view("_default").size());
    const size_t kv = name.find("_kv");
    if (kv == std::string::npos) return "configs/ptq/presets/model/" + name;
    return "configs/ptq/presets/kv/" + name.erase(kv, 3);
  }
  return {};
}

std::string Below(const std::string& folder, const std::string& name) {
  return (std::filesystem::path(folder) / name).string();
}

// A file, or a folder that holds metadata and quantize.
Result<std::vector<RecipeFile>> FileOrFolder(const RecipeSources& sources, const std::string& path) {
  std::vector<std::string> candidates = WithSuffixes(path);
  if (!HasSuffix(path)) candidates.insert(candidates.begin(), path);
  auto file = ReadFirst(sources, candidates);
  if (!file) return file.errors();
  if (*file) return std::vector<RecipeFile>{std::move(**file)};
  auto metadata = ReadFirst(sources, WithSuffixes(Below(path, "metadata")));
  if (!metadata) return metadata.errors();
  if (!*metadata) return std::vector<RecipeFile>();
  auto quantize = ReadFirst(sources, WithSuffixes(Below(path, "quantize")));
  if (!quantize) return quantize.errors();
  if (!*quantize) {
    return Error{ErrorKind::kInvalidRecipe, "a folder with metadata.yaml but without quantize.yaml", path, {}, {}};
  }
  return std::vector<RecipeFile>{std::move(**metadata), std::move(**quantize)};
}

}  // namespace

Found FindImport(const RecipeSources& sources, const std::string& name) {
  std::vector<std::string> paths = WithSuffixes(name);
  if (!std::filesystem::path(name).is_absolute()) {
    for (const std::string& folder : sources.folders) {
      for (const std::string& path : WithSuffixes(name)) paths.push_back(Below(folder, path));
    }
  }
  auto found = ReadFirst(sources, paths);
  if (!found || *found) return found;
  return BuiltIn(name);
}

Result<std::vector<RecipeFile>> FindRecipe(const RecipeSources& sources, const std::string& name) {
  if (!std::filesystem::path(name).is_absolute()) {
    for (const std::string& folder : sources.folders) {
      for (const std::string_view group : kInLibrary) {
        auto found = FileOrFolder(sources, Below(folder, std::string(group) + name));
        if (!found || !found->empty()) return found;
      }
    }
    for (const std::string_view group : kInLibrary) {
      if (auto found = BuiltIn(std::string(group) + name)) return std::vector<RecipeFile>{std::move(*found)};
    }
    if (const std::string constant = OfConstant(name); !constant.empty()) {
      if (auto found = BuiltIn(constant)) return std::vector<RecipeFile>{std::move(*found)};
    }
  }
  return FileOrFolder(sources, name);
}

}  // namespace quantport
