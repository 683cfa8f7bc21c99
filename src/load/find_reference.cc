#include "load/find_reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "base/json.h"
#include "base/text.h"
#include "checkpoint/checkpoint.h"
#include "load/configs.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelCard = "README.md";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr uint64_t kMaxTextBytes = 16 << 20;

std::optional<std::string> Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? std::nullopt : std::optional<std::string>(value);
}

// As huggingface_hub looks for it.
std::optional<fs::path> CacheFolder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (auto folder = Variable(name)) return *folder;
  }
  if (auto home = Variable("HF_HOME")) return fs::path(*home) / "hub";
  if (auto cache = Variable("XDG_CACHE_HOME")) return fs::path(*cache) / "huggingface/hub";
  if (auto home = Variable("HOME")) return fs::path(*home) / ".cache/huggingface/hub";
  return std::nullopt;
}

// "organization/model", and no path of a machine.
bool IsModelId(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == 0 || slash == std::string_view::npos || slash + 1 == text.size()) return false;
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  };
  const std::string_view organization = text.substr(0, slash);
  const std::string_view name = text.substr(slash + 1);
  return organization.front() != '.' && name.front() != '.' && text.find("..") == std::string_view::npos &&
         std::all_of(organization.begin(), organization.end(), plain) && std::all_of(name.begin(), name.end(), plain);
}

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kAround = " \t\r\"',[]";
  const size_t begin = text.find_first_not_of(kAround);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kAround) - begin + 1);
}

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

// The values of base_model in the metadata of a model card: one, a list on the same line, or a list below it.
std::vector<std::string> BaseModels(std::string_view card) {
  constexpr std::string_view kKey = "base_model:";
  std::vector<std::string> models;
  const auto lines = Lines(card);
  if (lines.empty() || !lines[0].starts_with("---")) return models;
  bool inside = false;
  for (size_t i = 1; i < lines.size() && !lines[i].starts_with("---"); ++i) {
    std::string_view line = lines[i];
    const bool item = Trimmed(line).starts_with("- ") || Trimmed(line) == "-";
    if (!line.starts_with(kKey) && !(inside && item)) {
      inside = false;
      continue;
    }
    line.remove_prefix(line.starts_with(kKey) ? kKey.size() : line.find('-') + 1);
    inside = true;
    while (!line.empty()) {
      const size_t end = std::min(line.find(','), line.size());
      models.emplace_back(Trimmed(line.substr(0, end)));
      line.remove_prefix(std::min(end + 1, line.size()));
    }
  }
  return models;
}

// The folder of the revision that the cache has of a model's main branch.
std::optional<std::string> Snapshot(const Storage& storage, const fs::path& cache, const std::string& id) {
  const fs::path model = cache / ("models--" + ReplaceAll(id, "/", "--"));
  if (!storage.IsFolder((model / "snapshots").string())) return std::nullopt;
  if (auto file = storage.OpenFile((model / "refs/main").string())) {
    const auto revision = ReadText(**file, kMaxTextBytes);
    if (!revision) return std::nullopt;
    const std::string_view name = Trimmed(*revision);
    const std::string folder = (model / "snapshots" / name).string();
    const bool plain = !name.empty() && name.find('/') == std::string_view::npos && name != "..";
    if (plain && storage.IsFolder(folder)) return folder;
  }
  return std::nullopt;
}

std::string ModelTypeOf(const std::string& config) {
  const auto json = ParseJson(config, {}, ErrorKind::kInvalidConfig);
  if (!json || !json->is_object()) return {};
  const auto found = json->find("model_type");
  return found != json->end() && found->is_string() ? found->get<std::string>() : std::string();
}

// Nothing where the folder has no such file.
Result<std::optional<std::string>> TextOf(const Storage& storage, const std::string& folder, std::string_view name) {
  const auto opened = storage.OpenFolder(folder);
  if (!opened) return opened.errors();
  if (!(*opened)->Has(name)) return std::optional<std::string>();
  auto text = ReadConfigText(**opened, name);
  if (!text) return text.errors();
  return std::optional(std::move(*text));
}

// The address by which a snapshot is a reference: names and shapes where its weights are there, names alone otherwise.
std::optional<std::string> AddressOf(const Storage& storage, const std::string& snapshot) {
  if (OpenReference(storage, snapshot)) return snapshot;
  const std::string index = (fs::path(snapshot) / kIndex).string();
  return OpenReference(storage, index) ? std::optional(index) : std::nullopt;
}

}  // namespace

Result<std::optional<FoundReference>> FindReference(const Storage& storage, const std::string& checkpoint) {
  const std::optional<FoundReference> none;
  const auto cache = CacheFolder();
  if (!cache || !storage.IsFolder(cache->string())) return none;
  const auto config_text = TextOf(storage, checkpoint, kConfigName);
  if (!config_text) return config_text.errors();
  const auto card = TextOf(storage, checkpoint, kModelCard);
  if (!card) return card.errors();
  const std::optional<std::string>& config = *config_text;
  if (!config) return none;
  std::vector<std::pair<std::string, std::string_view>> named;
  if (const auto json = ParseJson(*config, {}, ErrorKind::kInvalidConfig); json && json->is_object()) {
    const auto path = json->find("_name_or_path");
    if (path != json->end() && path->is_string())
      named.emplace_back(path->get<std::string>(), "config.json's _name_or_path");
  }
  for (std::string& model : BaseModels(card->value_or("")))
    named.emplace_back(std::move(model), "the model card's base_model");
  for (const auto& [id, who] : named) {
    if (!IsModelId(id)) continue;
    const auto snapshot = Snapshot(storage, *cache, id);
    if (!snapshot || fs::path(*snapshot).lexically_normal() == fs::absolute(checkpoint).lexically_normal()) continue;
    const auto its_config = TextOf(storage, *snapshot, kConfigName);
    if (!its_config || !*its_config || ModelTypeOf(**its_config) != ModelTypeOf(*config)) continue;
    if (auto address = AddressOf(storage, *snapshot)) {
      std::string note = fmt::format(
          "the reference is {} of the Hugging Face cache, which {} names ({}); --no-reference leaves it aside", id, who,
          *address);
      return std::optional(FoundReference{std::move(*address), std::move(note)});
    }
  }
  return none;
}

}  // namespace quantport
