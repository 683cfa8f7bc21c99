#include "config/references.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "base/json.h"
#include "base/text.h"
#include "config/quantization_json.h"

namespace quantport {
namespace {

// Objects whose keys are modules.
constexpr std::array<std::string_view, 2> kObjectKeys = {"quantized_layers", "layer_quant_config"};

// The names of module classes ("Linear") stand where module names may; they mean the same in every namespace.
bool IsClassName(std::string_view entry) {
  return !entry.empty() && std::isupper(static_cast<unsigned char>(entry[0])) != 0 &&
         entry.find('.') == std::string_view::npos;
}

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
  std::vector<std::string> seen;
  for (const Json& item : *list) {
    if (!item.is_string()) {
      out.push_back(item);
      continue;
    }
    for (std::string& entry : rewriter.Rewrite(item.get<std::string>())) {
      if (std::find(seen.begin(), seen.end(), entry) != seen.end()) continue;
      out.push_back(entry);
      seen.push_back(std::move(entry));
    }
  }
  *list = std::move(out);
}

void RewriteKeys(Json* object, const ReferenceRewriter& rewriter) {
  if (!object->is_object()) return;
  Json out = Json::object();
  for (const auto& [key, value] : object->items()) {
    for (const std::string& entry : rewriter.Rewrite(key)) out[entry] = value;
  }
  *object = std::move(out);
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

void AppendStrings(const Json& list, std::vector<std::string>* out) {
  if (!list.is_array()) return;
  for (const Json& item : list) {
    if (item.is_string()) out->push_back(item.get<std::string>());
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

namespace {

std::string StringAt(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

bool TrueAt(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}

uint64_t SizeAt(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_unsigned() ? it->get<uint64_t>() : 0;
}

// An object at a key, or an empty one.
const Json& ObjectAt(const Json& object, const char* key) {
  static const Json kNone = Json::object();
  const auto it = object.find(key);
  return it != object.end() && it->is_object() ? *it : kNone;
}

template <typename T>
void AddOnce(T value, std::vector<T>* values) {
  if (value != T() && std::find(values->begin(), values->end(), value) == values->end())
    values->push_back(std::move(value));
}

std::string Upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

void ReadTile(const Json& object, const char* key, QuantScheme* scheme) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array() || it->empty()) return;
  for (size_t i = 0; i < 2; ++i) {
    const Json& size = it->size() > i ? (*it)[i] : it->front();
    if (!size.is_number_unsigned()) return;
    scheme->fp8_tile[i] = std::max<uint64_t>(1, size.get<uint64_t>());
  }
  scheme->states_tile = true;
}

// compressed-tensors' groups, which ModelOpt has as well, without formats.
void ReadGroups(const Json& groups, QuantScheme* scheme) {
  for (const auto& [name, group] : groups.items()) {
    if (!group.is_object()) continue;
    AddOnce(StringAt(group, "format"), &scheme->claims);
    const Json& weights = ObjectAt(group, "weights");
    AddOnce(SizeAt(weights, "group_size"), &scheme->group_sizes);
    AddOnce(SizeAt(weights, "num_bits"), &scheme->bits);
    ReadTile(weights, "block_structure", scheme);
  }
}

// What the method says of storage, beyond its own name.
void ReadMethod(const Json& quantization, QuantScheme* scheme) {
  scheme->method = StringAt(quantization, "quant_method");
  if (scheme->method == "bitsandbytes") {
    if (TrueAt(quantization, "load_in_4bit")) AddOnce<std::string>("bitsandbytes 4-bit", &scheme->claims);
    if (TrueAt(quantization, "load_in_8bit")) AddOnce<std::string>("bitsandbytes 8-bit", &scheme->claims);
  } else if (scheme->method == "gptq" || scheme->method == "awq") {
    // Both have variants whose words are laid out otherwise; only the plain ones are a claim.
    std::string variant;
    for (const char* key : {"checkpoint_format", "format", "version"}) {
      if (variant.empty()) variant = Upper(StringAt(quantization, key));
    }
    const bool plain = scheme->method == "gptq" ? variant.empty() || variant.starts_with("GPTQ") : variant == "GEMM";
    if (plain) AddOnce(scheme->method, &scheme->claims);
    scheme->zeros_less_one = scheme->method == "gptq" && !variant.starts_with("GPTQ_V2");
    const auto order = quantization.find("desc_act");
    scheme->ordered_groups = order != quantization.end() && order->is_boolean() && !order->get<bool>();
    scheme->overrides |= !ObjectAt(quantization, "dynamic").empty();
  } else if (scheme->method == "fp8" || scheme->method == "mxfp4") {
    AddOnce(scheme->method, &scheme->claims);
  }
}

void ReadLists(const Json& quantization, QuantScheme* scheme) {
  for (const std::string_view key : kModuleListKeys) {
    const auto it = quantization.find(std::string(key));
    if (it == quantization.end() || key == "modules_to_convert" || key == "modules_in_block_to_quantize") continue;
    scheme->has_exclude_list |= it->is_array();
    AppendStrings(*it, &scheme->excluded);
  }
  for (const auto& [entry, layer] : ObjectAt(quantization, "quantized_layers").items()) {
    LayerScheme described{entry, {}, 0};
    if (layer.is_object()) {
      described.algorithm = StringAt(layer, "quant_algo");
      described.group_size = SizeAt(layer, "group_size");
    }
    scheme->quantized_layers.push_back(std::move(described));
  }
}

void ReadQuantization(const Json& quantization, QuantScheme* scheme) {
  scheme->quantized = true;
  for (const char* key : {"quant_algo", "quant_method", "format"}) {
    if (scheme->quant_algo.empty()) scheme->quant_algo = StringAt(quantization, key);
  }
  AddOnce(StringAt(quantization, "quant_algo"), &scheme->claims);
  ReadMethod(quantization, scheme);
  if (scheme->method == "compressed-tensors") AddOnce(StringAt(quantization, "format"), &scheme->claims);
  AddOnce(SizeAt(quantization, "group_size"), &scheme->group_sizes);
  AddOnce(SizeAt(quantization, "bits"), &scheme->bits);
  ReadTile(quantization, "weight_block_size", scheme);
  ReadGroups(ObjectAt(quantization, "config_groups"), scheme);
  const Json& quark = ObjectAt(ObjectAt(quantization, "global_quant_config"), "weight");
  AddOnce(SizeAt(quark, "group_size"), &scheme->group_sizes);
  scheme->overrides |= !ObjectAt(quantization, "layer_quant_config").empty() ||
                       !ObjectAt(quantization, "layer_type_quant_config").empty();
  ReadLists(quantization, scheme);
}

}  // namespace

Result<QuantScheme> ReadScheme(const std::string& text, std::string_view file) {
  auto json = ParseJson(text, file, ErrorKind::kInvalidConfig);
  if (!json) return json.errors();
  if (!json->is_object()) return Error{ErrorKind::kInvalidConfig, "not a JSON object", std::string(file), {}, {}};
  QuantScheme scheme;
  for (const Json* quantization : FindQuantizations(&*json)) ReadQuantization(*quantization, &scheme);
  return scheme;
}

}  // namespace quantport
