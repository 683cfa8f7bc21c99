#include "config/references.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_set>

#include "base/json_object.h"
#include "base/text.h"
#include "dialect/entry.h"
#include "dialect/quantization_json.h"

namespace quantport {
namespace {

// Objects whose keys are modules.
constexpr std::array<std::string_view, 2> kObjectKeys = {"quantized_layers", "layer_quant_config"};

size_t Depth(std::string_view path) { return static_cast<size_t>(std::count(path.begin(), path.end(), '.')) + 1; }

// `path` without its last `count` components, or nothing where that leaves none.
std::optional<std::string> DropComponents(std::string path, size_t count) {
  for (; count > 0; --count) {
    const size_t dot = path.rfind('.');
    if (dot == std::string::npos) return std::nullopt;
    path.resize(dot);
  }
  return path;
}

// "<container>.<i>.<linear>" -> "<container>"; anything else -> "".
std::string ExpertContainer(std::string_view module) {
  const auto [container, number] = SplitLeaf(SplitLeaf(module).module);
  return IsDigits(number) ? std::string(container) : std::string();
}

std::vector<std::string> AllHubModules(const std::map<std::string, std::vector<std::string>>& modules) {
  std::vector<std::string> names;
  for (const auto& [module, hubs] : modules) names.insert(names.end(), hubs.begin(), hubs.end());
  return names;
}

std::vector<std::string> AllKeys(const std::map<std::string, std::vector<std::string>>& modules) {
  std::vector<std::string> names;
  for (const auto& [module, hubs] : modules) names.push_back(module);
  return names;
}

}  // namespace

ReferenceRewriter::ReferenceRewriter(const std::map<std::string, std::vector<std::string>>& modules,
                                     std::function<std::string(const std::string&)> rename)
    : in_memory_(AllKeys(modules)), hub_(AllHubModules(modules)), rename_(std::move(rename)) {
  for (const std::string& module : in_memory_.names()) {
    std::vector<uint32_t> hubs;
    for (const std::string& hub : modules.at(module)) {
      const auto it = std::lower_bound(hub_.names().begin(), hub_.names().end(), hub);
      hubs.push_back(static_cast<uint32_t>(it - hub_.names().begin()));
    }
    to_hub_.push_back(std::move(hubs));
  }
}

std::vector<uint32_t> ReferenceRewriter::HubOf(const std::vector<uint32_t>& in_memory) const {
  std::vector<uint32_t> hubs;
  for (const uint32_t module : in_memory) hubs.insert(hubs.end(), to_hub_[module].begin(), to_hub_[module].end());
  std::sort(hubs.begin(), hubs.end());
  hubs.erase(std::unique(hubs.begin(), hubs.end()), hubs.end());
  return hubs;
}

// The hub paths of an in-memory path: those as far above the hub modules as it is above the modules they came from. One
// path may become several (MiniMax-M3's multi_modal_projector).
std::vector<std::string> ReferenceRewriter::RenamePath(const std::string& path) const {
  std::vector<std::string> paths;
  for (const uint32_t module : in_memory_.Matches(path)) {
    const size_t below = Depth(in_memory_.names()[module]) - Depth(path);
    for (const uint32_t hub : to_hub_[module]) {
      // Stacked experts are one module in memory and many on the hub, two levels further down.
      std::string level = ExpertContainer(hub_.names()[hub]);
      if (level.empty() || !ExpertContainer(in_memory_.names()[module]).empty()) level = hub_.names()[hub];
      auto above = DropComponents(std::move(level), below);
      if (!above) return {};
      if (std::find(paths.begin(), paths.end(), *above) == paths.end()) paths.push_back(std::move(*above));
    }
  }
  return paths;
}

std::vector<ReferenceRewriter::Entries> ReferenceRewriter::Candidates(const std::string& entry) const {
  if (IsRegex(entry)) return {{entry}};
  // A glob keeps its trailing wildcard; what stands before it is a path to rename.
  const std::string_view suffix = entry.ends_with(".*") ? ".*" : entry.ends_with("*") ? "*" : "";
  const std::string base = entry.substr(0, entry.size() - suffix.size());
  if (base.empty() || IsGlob(base)) return {{entry}};
  std::vector<Entries> candidates = {RenamePath(base), {rename_(base)}};
  for (Entries& candidate : candidates) {
    for (std::string& path : candidate) path += suffix;
  }
  candidates.push_back({entry});
  return candidates;
}

std::vector<uint32_t> ReferenceRewriter::HubMatches(const std::vector<std::string>& entries) const {
  std::vector<uint32_t> all;
  for (const std::string& entry : entries) {
    const std::vector<uint32_t> hits = hub_.Matches(entry);
    all.insert(all.end(), hits.begin(), hits.end());
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

std::vector<std::string> ReferenceRewriter::Rewrite(const std::string& entry) const {
  const std::vector<uint32_t> in_memory = in_memory_.Matches(entry);
  if (in_memory.empty() && IsClassName(entry)) return {entry};
  const std::vector<uint32_t> wanted = HubOf(in_memory);
  // An entry for modules that this checkpoint does not hold is renamed by rule, as long as it hits no others.
  for (Entries& candidate : Candidates(entry)) {
    if (!candidate.empty() && HubMatches(candidate) == wanted) return std::move(candidate);
  }
  return hub_.ExactEntries(wanted);
}

namespace {

void RewriteList(Json* list, const ReferenceRewriter& rewriter) {
  if (!list->is_array()) return;
  Json out = Json::array();
  std::unordered_set<std::string> seen;
  for (const Json& item : *list) {
    if (!item.is_string()) {
      out.push_back(item);
      continue;
    }
    for (std::string& entry : rewriter.Rewrite(item.get<std::string>())) {
      if (seen.insert(entry).second) out.push_back(std::move(entry));
    }
  }
  *list = std::move(out);
}

void RewriteKeys(Json* object, const ReferenceRewriter& rewriter) {
  if (!object->is_object()) return;
  JsonObjectBuilder out;
  for (const auto& [key, value] : object->items()) {
    for (const std::string& entry : rewriter.Rewrite(key)) out.Set(entry, value);
  }
  *object = out.Take();
}

void RewriteQuantization(Json* quantization, const ReferenceRewriter& rewriter) {
  for (const std::string_view key : kModuleListKeys) {
    if (auto it = quantization->find(std::string(key)); it != quantization->end()) RewriteList(&*it, rewriter);
  }
  for (const std::string_view key : kObjectKeys) {
    if (auto it = quantization->find(std::string(key)); it != quantization->end()) RewriteKeys(&*it, rewriter);
  }
  const auto groups = quantization->find("config_groups");
  if (groups == quantization->end() || !groups->is_object()) return;
  for (auto& [name, group] : groups->items()) {
    if (!group.is_object()) continue;
    if (auto it = group.find("targets"); it != group.end()) RewriteList(&*it, rewriter);
  }
}

}  // namespace

Result<std::string> RewriteReferences(const std::string& text, std::string_view file,
                                      const ReferenceRewriter& rewriter) {
  auto json = ParseJson(text, file, ErrorKind::kInvalidConfig);
  if (!json) return json.errors();
  if (!json->is_object()) return Error{ErrorKind::kInvalidConfig, "not a JSON object", std::string(file), {}, {}};
  Json before = *json;
  for (Json* quantization : FindQuantizations(&*json)) RewriteQuantization(quantization, rewriter);
  if (*json == before) return text;
  return DumpJson(*json, StyleOf(text));
}

}  // namespace quantport
