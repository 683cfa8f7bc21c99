#include "config/module_set.h"

#include <algorithm>
#include <numeric>

#include "base/text.h"
#include "mapping/pattern.h"

namespace quantport {
namespace {

constexpr std::string_view kRegexPrefix = "re:";

}  // namespace

bool IsRegex(std::string_view entry) { return entry.starts_with(kRegexPrefix); }

bool IsGlob(std::string_view entry) { return !IsRegex(entry) && entry.find_first_of("*?[") != std::string_view::npos; }

ModuleSet::ModuleSet(std::vector<std::string> modules) : names_(std::move(modules)) {
  std::sort(names_.begin(), names_.end());
  names_.erase(std::unique(names_.begin(), names_.end()), names_.end());
}

std::pair<size_t, size_t> ModuleSet::PrefixRange(std::string_view prefix) const {
  const auto begin = std::lower_bound(names_.begin(), names_.end(), prefix);
  const auto end =
      std::partition_point(begin, names_.end(), [&](const std::string& name) { return name.starts_with(prefix); });
  return {static_cast<size_t>(begin - names_.begin()), static_cast<size_t>(end - names_.begin())};
}

std::vector<uint32_t> ModuleSet::Matches(std::string_view entry) const {
  std::vector<uint32_t> out;
  if (IsRegex(entry)) {
    const auto pattern = ModulePattern::Compile(entry.substr(kRegexPrefix.size()));
    for (size_t i = 0; pattern && i < names_.size(); ++i) {
      if (pattern->MatchesStart(names_[i])) out.push_back(static_cast<uint32_t>(i));
    }
    return out;
  }
  // Lists of thousands of entries meet checkpoints of thousands of modules: only names that share the entry's literal
  // beginning are looked at.
  const bool glob = IsGlob(entry);
  const auto [begin, end] = PrefixRange(entry.substr(0, glob ? entry.find_first_of("*?[") : entry.size()));
  for (size_t i = begin; i < end; ++i) {
    const std::string& name = names_[i];
    const bool hit = glob ? GlobMatch(entry, name) : name.size() == entry.size() || name[entry.size()] == '.';
    if (hit) out.push_back(static_cast<uint32_t>(i));
  }
  return out;
}

std::vector<std::string> ModuleSet::Describe(const std::vector<uint32_t>& wanted, bool glob) const {
  std::vector<std::string> entries;
  const auto is_wanted = [&](const std::vector<uint32_t>& hits) {
    return std::includes(wanted.begin(), wanted.end(), hits.begin(), hits.end());
  };
  for (size_t w = 0; w < wanted.size();) {
    // The shortest path above this module whose whole subtree is wanted.
    const std::string& name = names_[wanted[w]];
    std::string entry = name;
    std::vector<uint32_t> covered = {wanted[w]};
    for (size_t dot = name.find('.');; dot = name.find('.', dot + 1)) {
      const std::string path = name.substr(0, dot);
      const auto below = Matches(path);
      if (below.size() > 1 && is_wanted(below)) {
        entry = path;
        covered = below;
        if (glob) entry = is_wanted(Matches(path + "*")) ? path + "*" : path + ".*";
        // "path.*" leaves out the module `path` itself.
        if (entry.ends_with(".*") && names_[below[0]] == path) entries.push_back(path);
        break;
      }
      if (dot == std::string::npos) {
        // An exact name covers what lies below it; where that is not wanted, a regular expression keeps it exact.
        if (!is_wanted(below)) entry = "re:^" + ReplaceAll(name, ".", "\\.") + "$";
        break;
      }
    }
    entries.push_back(std::move(entry));
    while (w < wanted.size() && std::binary_search(covered.begin(), covered.end(), wanted[w])) ++w;
  }
  return entries;
}

}  // namespace quantport
