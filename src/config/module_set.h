// The modules of a checkpoint, and which of them an entry of a config file speaks of.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quantport {

class ModuleSet {
 public:
  explicit ModuleSet(std::vector<std::string> modules);

  // Indices into names(), sorted. An entry is an exact name, which also covers what lies below it; a glob over the
  // whole name (* ? [..]); or "re:" and a Python regular expression that matches at the start.
  std::vector<uint32_t> Matches(std::string_view entry) const;

  const std::vector<std::string>& names() const { return names_; }  // sorted, without duplicates

  // Entries that match exactly `wanted` (indices), one for each.
  std::vector<std::string> ExactEntries(const std::vector<uint32_t>& wanted) const;

 private:
  std::pair<size_t, size_t> PrefixRange(std::string_view prefix) const;

  std::vector<std::string> names_;
};

}  // namespace quantport
