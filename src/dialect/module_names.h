// The names of a checkpoint's modules, and which of them an entry of a config file speaks of.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dialect/claims.h"
#include "quantport/error.h"

namespace quantport {

// What holding the entries of a config against the names of modules may cost, all of them together: patterns are
// strangers', and thousands of them can meet thousands of modules. 70,000 modules and 60 expressions need a fifth of
// it.
inline constexpr uint64_t kMatchSteps = 10'000'000'000;

struct MatchBudget {
  uint64_t steps = kMatchSteps;
  const std::atomic<bool>* cancel = nullptr;  // set from outside to stop
};

class ModuleNames {
 public:
  explicit ModuleNames(std::vector<std::string> names);
  ModuleNames(const ModuleNames&) = delete;
  ModuleNames& operator=(const ModuleNames&) = delete;
  ModuleNames(ModuleNames&&) = default;
  ModuleNames& operator=(ModuleNames&&) = default;

  const std::vector<std::string>& names() const { return names_; }  // sorted, without duplicates

  // Indices into names(), sorted, of what `entry` matches. A name that is matched from its beginning stands for what
  // lies below it as well. Errors: kInvalidConfig naming the entry where it takes too many steps, kCancelled.
  Result<std::vector<uint32_t>> Matches(std::string_view entry, Matching matching, MatchBudget* budget) const;

 private:
  void AddBelow(std::string_view entry, std::vector<uint32_t>* found) const;
  void AddEnding(std::string_view entry, std::vector<uint32_t>* found) const;

  std::vector<std::string> names_;
  std::vector<std::string_view> views_;  // of names_
  std::vector<uint32_t> by_end_;         // sorted by the names read backwards
};

// Calls `hit` with the index of each name that a glob or a regular expression matches. Errors: as Matches.
Status FindMatches(std::string_view entry, Matching matching, std::span<const std::string_view> sorted,
                   MatchBudget* budget, const std::function<void(size_t)>& hit);

}  // namespace quantport
