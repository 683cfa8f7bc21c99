#include "config/module_set.h"

#include <algorithm>
#include <numeric>

#include "base/text.h"
#include "dialect/entry.h"
#include "mapping/pattern.h"

namespace quantport {
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

std::vector<std::string> ModuleSet::ExactEntries(const std::vector<uint32_t>& wanted) const {
  std::vector<std::string> entries;
  for (const uint32_t module : wanted) {
    const std::vector<uint32_t> covered = Matches(names_[module]);
    // A name covers what lies below it; where that is not wanted, a regular expression keeps it exact.
    const bool exact = std::includes(wanted.begin(), wanted.end(), covered.begin(), covered.end());
    entries.push_back(exact ? names_[module] : "re:^" + ReplaceAll(names_[module], ".", "\\.") + "$");
  }
  return entries;
}

}  // namespace quantport
