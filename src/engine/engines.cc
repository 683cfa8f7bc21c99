#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "base/text.h"
#include "engine/engine.h"

namespace quantport {
namespace {

constexpr std::array<const Engine*, 3> kEngines = {&kSglang, &kTensorRtLlm, &kVllm};

}  // namespace

const Engine* FindEngine(std::string_view name) {
  for (const Engine* engine : kEngines) {
    if (engine->name == name) return engine;
  }
  return nullptr;
}

std::string EngineNames() {
  std::vector<std::string_view> names;
  for (const Engine* engine : kEngines) names.push_back(engine->name);
  return fmt::format("{}", fmt::join(names, ", "));
}

const Json* FindQuantization(const Json& config) {
  const auto member = [](const Json& object, const char* key) -> const Json* {
    if (!object.is_object()) return nullptr;
    const auto it = object.find(key);
    return it != object.end() && it->is_object() ? &*it : nullptr;
  };
  if (const Json* own = member(config, "quantization_config")) return own;
  if (const Json* text = member(config, "text_config")) {
    if (const Json* below = member(*text, "quantization_config")) return below;
  }
  return member(config, "compression_config");
}

std::string TextOf(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

std::vector<std::string> TextsOf(const Json& object, const char* key) {
  std::vector<std::string> texts;
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array()) return texts;
  for (const Json& item : *it) {
    if (item.is_string()) texts.push_back(item.get<std::string>());
  }
  return texts;
}

uint64_t NumberOf(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number_integer()) return 0;
  return it->is_number_unsigned() ? it->get<uint64_t>()
                                  : static_cast<uint64_t>(std::max<int64_t>(it->get<int64_t>(), 0));
}

std::string UpperCase(std::string_view text) {
  std::string upper(text);
  for (char& c : upper) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return upper;
}

std::string LastSegment(std::string_view prefix) { return std::string(SplitLeaf(prefix).leaf); }

PartsNamed PartsExcluded(const std::string& prefix, const std::vector<std::string>& parts,
                         const std::vector<std::string>& entries,
                         bool (*match)(const std::string& entry, const std::string& part)) {
  const std::string last = LastSegment(prefix);
  std::vector<std::string> named, unnamed;
  for (const std::string& part : parts) {
    const std::string module = ReplaceAll(prefix, last, part);
    const bool hit =
        std::any_of(entries.begin(), entries.end(), [&](const std::string& entry) { return match(entry, module); });
    (hit ? named : unnamed).push_back(part);
  }
  if (named.empty()) return {};
  if (unnamed.empty()) return {true, {}};
  return {false, fmt::format("the exclude list names {}, but not {}, with which it is one layer in the engine",
                             fmt::join(named, ", "), fmt::join(unnamed, ", "))};
}

LayerDecision ListedAlgorithm(const std::map<std::string, std::string>& layers, const ArchitectureFacts& architecture,
                              const std::string& prefix, const std::vector<std::string>& candidates) {
  for (const std::string& candidate : candidates) {
    if (const auto it = layers.find(candidate); it != layers.end()) return {it->second, {}};
  }
  if (const auto packed = architecture.packed.find(LastSegment(prefix)); packed != architecture.packed.end()) {
    std::set<std::string> algorithms;
    for (const std::string& candidate : candidates) {
      const std::string base(SplitLeaf(candidate).module);
      for (const std::string& part : packed->second) {
        if (const auto it = layers.find(JoinName(base, part)); it != layers.end()) algorithms.insert(it->second);
      }
    }
    if (algorithms.size() == 1) return {*algorithms.begin(), {}};
    if (algorithms.size() > 1) {
      return {{}, fmt::format("its parts have different algorithms: {}", fmt::join(algorithms, ", "))};
    }
  }
  for (const std::string& candidate : candidates) {
    const std::string below = candidate + ".";
    const auto it = layers.lower_bound(below);
    if (it != layers.end() && it->first.starts_with(below)) return {it->second, {}};
  }
  return {};
}

}  // namespace quantport
