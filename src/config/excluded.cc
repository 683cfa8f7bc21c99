#include "config/excluded.h"

#include <algorithm>
#include <functional>
#include <set>
#include <unordered_set>

#include "base/json.h"
#include "base/text.h"
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
Result<std::vector<std::string>> Uncovered(const Json& list, EntrySyntax syntax, const ModuleNames& set,
                                           MatchBudget* budget) {
  std::vector<bool> covered(set.names().size());
  for (const Json& item : list) {
    if (!item.is_string()) continue;
    const std::string entry = item.get<std::string>();
    const auto hits = set.Matches(entry, MatchingOf(entry, syntax), budget);
    if (!hits) return hits.errors();
    for (const uint32_t hit : *hits) covered[hit] = true;
  }
  std::vector<std::string> left;
  for (size_t i = 0; i < covered.size(); ++i) {
    if (!covered[i]) left.push_back(set.names()[i]);
  }
  return left;
}

// `change` is called with every exclude list of the text, the syntax of its entries, and whether they may be globs; it
// says whether it changed anything.
Result<std::string> ChangeLists(const std::string& text, std::string_view file,
                                const std::function<Result<bool>(Json*, EntrySyntax, bool)>& change) {
  auto json = ParseJson(text, file, ErrorKind::kInvalidConfig);
  if (!json) return json.errors();
  if (!json->is_object()) return Error{ErrorKind::kInvalidConfig, "not a JSON object", std::string(file), {}, {}};
  bool changed = false;
  for (Json* quantization : FindQuantizations(&*json)) {
    const auto method = quantization->find("quant_method");
    const bool globs = method == quantization->end() || *method != "compressed-tensors";
    for (const ModuleField& field : kModuleFields) {
      const auto list = quantization->find(std::string(field.key));
      if (!field.excludes || list == quantization->end() || !list->is_array()) continue;
      auto done = change(&*list, field.syntax, globs);
      if (!done) {
        for (Error& error : done.errors()) error.file = file;
        return done.errors();
      }
      changed |= *done;
    }
  }
  return changed ? DumpJson(*json, StyleOf(text)) : text;
}

}  // namespace

Result<std::string> AddExcluded(const std::string& text, std::string_view file, const std::vector<std::string>& modules,
                                const std::vector<std::string>& others, MatchBudget* budget) {
  const auto taken = PathsOf(others);
  const ModuleNames names(modules);
  return ChangeLists(text, file, [&](Json* list, EntrySyntax syntax, bool globs) -> Result<bool> {
    auto uncovered = Uncovered(*list, syntax, names, budget);
    if (!uncovered) return uncovered.errors();
    auto entries = EntriesFor(*uncovered, taken, globs);
    for (std::string& entry : entries) list->push_back(std::move(entry));
    return !entries.empty();
  });
}

Result<std::string> DropExcluded(const std::string& text, std::string_view file,
                                 const std::vector<std::string>& quantized, const std::vector<std::string>& others,
                                 MatchBudget* budget) {
  const auto taken = PathsOf(quantized);
  const ModuleNames wrong(quantized);
  const ModuleNames right(others);
  return ChangeLists(text, file, [&](Json* list, EntrySyntax syntax, bool globs) -> Result<bool> {
    bool changed = false;
    Json kept = Json::array();
    for (const Json& item : *list) {
      if (!item.is_string()) {
        kept.push_back(item);
        continue;
      }
      const std::string entry = item.get<std::string>();
      const auto hits = wrong.Matches(entry, MatchingOf(entry, syntax), budget);
      if (!hits) return hits.errors();
      if (hits->empty()) {
        kept.push_back(item);
        continue;
      }
      changed = true;
      const auto meant = right.Matches(entry, MatchingOf(entry, syntax), budget);
      if (!meant) return meant.errors();
      std::vector<std::string> modules;
      for (const uint32_t module : *meant) modules.push_back(right.names()[module]);
      for (std::string& narrower : EntriesFor(modules, taken, globs)) kept.push_back(std::move(narrower));
    }
    if (changed) *list = std::move(kept);
    return changed;
  });
}

}  // namespace quantport
