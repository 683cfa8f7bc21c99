#include "config/excluded.h"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "base/json.h"
#include "base/text.h"
#include "config/module_set.h"
#include "dialect/quantization_json.h"

namespace quantport {
namespace {

// Every module and every path above one.
std::unordered_set<std::string> PathsOf(const std::vector<std::string>& modules) {
  std::unordered_set<std::string> paths;
  for (const std::string& module : modules) {
    for (size_t dot = module.find('.'); dot != std::string::npos; dot = module.find('.', dot + 1))
      paths.insert(module.substr(0, dot));
    paths.insert(module);
  }
  return paths;
}

// The shortest path above `module` that is not taken; `module` itself where there is none.
std::string FreeAncestor(const std::string& module, const std::unordered_set<std::string>& taken) {
  for (size_t dot = module.find('.'); dot != std::string::npos; dot = module.find('.', dot + 1)) {
    if (std::string path = module.substr(0, dot); !taken.contains(path)) return path;
  }
  return module;
}

std::string Escaped(std::string_view path) { return ReplaceAll(path, ".", "\\."); }

std::vector<std::string> EntriesFor(const std::vector<std::string>& modules,
                                    const std::unordered_set<std::string>& taken, bool globs) {
  std::vector<std::string> entries;
  std::set<std::string> seen;
  for (const std::string& module : modules) {
    const std::string path = FreeAncestor(module, taken);
    std::string entry = path;
    if (path != module) entry = globs ? path + ".*" : "re:" + Escaped(path) + "\\..*";
    if (seen.insert(entry).second) entries.push_back(std::move(entry));
  }
  return entries;
}

// The modules that no entry of the list covers.
std::vector<std::string> Uncovered(const Json& list, const std::vector<std::string>& modules) {
  const ModuleSet set(modules);
  std::vector<bool> covered(set.names().size());
  for (const Json& item : list) {
    if (!item.is_string()) continue;
    for (const uint32_t hit : set.Matches(item.get<std::string>())) covered[hit] = true;
  }
  std::vector<std::string> left;
  for (size_t i = 0; i < covered.size(); ++i) {
    if (!covered[i]) left.push_back(set.names()[i]);
  }
  return left;
}

}  // namespace

Result<std::string> AddExcluded(const std::string& text, std::string_view file, const std::vector<std::string>& modules,
                                const std::vector<std::string>& others) {
  auto json = ParseJson(text, file, ErrorKind::kInvalidConfig);
  if (!json) return json.errors();
  if (!json->is_object()) return Error{ErrorKind::kInvalidConfig, "not a JSON object", std::string(file), {}, {}};
  const auto taken = PathsOf(others);
  bool changed = false;
  for (Json* quantization : FindQuantizations(&*json)) {
    const auto method = quantization->find("quant_method");
    const bool globs = method == quantization->end() || *method != "compressed-tensors";
    for (const std::string_view key : kModuleListKeys) {
      if (std::find(kChosenListKeys.begin(), kChosenListKeys.end(), key) != kChosenListKeys.end()) continue;
      const auto list = quantization->find(std::string(key));
      if (list == quantization->end() || !list->is_array()) continue;
      for (std::string& entry : EntriesFor(Uncovered(*list, modules), taken, globs)) {
        list->push_back(std::move(entry));
        changed = true;
      }
    }
  }
  return changed ? DumpJson(*json, StyleOf(text)) : text;
}

}  // namespace quantport
