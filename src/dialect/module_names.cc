#include "dialect/module_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "base/text.h"
#include "dialect/entry.h"
#include "mapping/pattern.h"

namespace quantport {
namespace {

// Compiling a pattern costs as much as matching it some dozen times.
constexpr uint64_t kCompileSteps = 1 << 14;

Error TooLong(std::string_view entry, std::string_view module) {
  return {ErrorKind::kInvalidConfig,
          fmt::format("the entry \"{}\" takes more than {} steps to hold against one name", entry, kMatchLimit),
          {},
          std::string(module),
          "write it without nested repetitions, or name the modules"};
}

Error TooMany(std::string_view entry) {
  return {
      ErrorKind::kInvalidConfig,
      fmt::format("the entries take more than {} steps to hold against all modules; \"{}\" was the last that was tried",
                  kMatchSteps, entry),
      {},
      {},
      "write fewer patterns, or name the modules"};
}

// The expression that says the same at the start of a name.
std::string ExpressionOf(std::string_view entry, Matching matching) {
  if (matching == Matching::kRegexSearch) return fmt::format("(?s:.*?)(?:{})", entry);
  if (matching == Matching::kSegments) return fmt::format("(?:{})(?:\\.(?s:.*))?$", entry);
  return std::string(IsRegex(entry) ? entry.substr(kRegexPrefix.size()) : entry);
}

// An entry's pattern, ready to be held against names.
class EntryPattern {
 public:
  EntryPattern(std::string_view entry, Matching matching, MatchBudget* budget) : entry_(entry), budget_(*budget) {
    if (matching == Matching::kGlob) {
      beginning_ = entry.substr(0, entry.find_first_of("*?["));
      return;
    }
    budget_.steps -= std::min(budget_.steps, kCompileSteps);
    expression_ = ModulePattern::Compile(ExpressionOf(entry, matching));
    matches_nothing_ = !expression_;
  }

  // What all that it matches begins with.
  std::string_view beginning() const { return beginning_; }
  // An expression that does not compile.
  bool matches_nothing() const { return matches_nothing_; }

  Result<bool> Matches(std::string_view name) {
    if (budget_.cancel != nullptr && budget_.cancel->load(std::memory_order_relaxed))
      return Error{ErrorKind::kCancelled, "stopped on request", {}, {}, {}};
    PatternMatch match = PatternMatch::kGivenUp;
    if (expression_) {
      match = expression_->MatchesStart(name, &budget_.steps);
    } else if (const auto glob = GlobMatch(entry_, name, &budget_.steps)) {
      match = *glob ? PatternMatch::kYes : PatternMatch::kNo;
    }
    if (budget_.steps == 0) return TooMany(entry_);
    if (match == PatternMatch::kGivenUp) return TooLong(entry_, name);
    return match == PatternMatch::kYes;
  }

 private:
  std::string_view entry_;
  std::string_view beginning_;
  MatchBudget& budget_;
  std::optional<ModulePattern> expression_;
  bool matches_nothing_ = false;
};

// Whether `a` comes before `b` when both are read from their ends.
bool EndLess(std::string_view a, std::string_view b) {
  return std::lexicographical_compare(a.rbegin(), a.rend(), b.rbegin(), b.rend());
}

void SortOnce(std::vector<uint32_t>* indices) {
  std::sort(indices->begin(), indices->end());
  indices->erase(std::unique(indices->begin(), indices->end()), indices->end());
}

}  // namespace

Status FindMatches(std::string_view entry, Matching matching, std::span<const std::string_view> sorted,
                   MatchBudget* budget, const std::function<void(size_t)>& hit) {
  EntryPattern pattern(entry, matching, budget);
  if (pattern.matches_nothing()) return {};
  // Lists of thousands of entries meet checkpoints of thousands of modules.
  const std::string_view beginning = pattern.beginning();
  const auto begin = std::lower_bound(sorted.begin(), sorted.end(), beginning);
  const auto end =
      std::partition_point(begin, sorted.end(), [&](std::string_view name) { return name.starts_with(beginning); });
  for (auto it = begin; it != end; ++it) {
    auto matches = pattern.Matches(*it);
    if (!matches) return matches.errors();
    if (*matches) hit(static_cast<size_t>(it - sorted.begin()));
  }
  return {};
}

ModuleNames::ModuleNames(std::vector<std::string> names) : names_(std::move(names)) {
  std::sort(names_.begin(), names_.end());
  names_.erase(std::unique(names_.begin(), names_.end()), names_.end());
  views_.assign(names_.begin(), names_.end());
  by_end_.resize(names_.size());
  std::iota(by_end_.begin(), by_end_.end(), 0U);
  std::sort(by_end_.begin(), by_end_.end(), [&](uint32_t a, uint32_t b) { return EndLess(names_[a], names_[b]); });
}

// The name itself, and what lies below it.
void ModuleNames::AddBelow(std::string_view entry, std::vector<uint32_t>* found) const {
  auto it = std::lower_bound(views_.begin(), views_.end(), entry);
  if (it != views_.end() && *it == entry) found->push_back(static_cast<uint32_t>(it - views_.begin()));
  const std::string below = fmt::format("{}.", entry);
  for (it = std::lower_bound(it, views_.end(), below); it != views_.end() && it->starts_with(below); ++it)
    found->push_back(static_cast<uint32_t>(it - views_.begin()));
}

// The name itself, and names that have it as their last segments.
void ModuleNames::AddEnding(std::string_view entry, std::vector<uint32_t>* found) const {
  const auto before = [&](uint32_t index, std::string_view text) { return EndLess(names_[index], text); };
  auto it = std::lower_bound(by_end_.begin(), by_end_.end(), entry, before);
  if (it != by_end_.end() && names_[*it] == entry) found->push_back(*it);
  const std::string ending = fmt::format(".{}", entry);
  for (it = std::lower_bound(it, by_end_.end(), ending, before); it != by_end_.end() && names_[*it].ends_with(ending);
       ++it)
    found->push_back(*it);
}

Result<std::vector<uint32_t>> ModuleNames::Matches(std::string_view entry, Matching matching,
                                                   MatchBudget* budget) const {
  std::vector<uint32_t> found;
  const bool segments = matching == Matching::kSegments && !HasSpecialCharacters(entry);
  if (matching == Matching::kExact || matching == Matching::kBelow || segments) {
    AddBelow(entry, &found);
    if (segments) {
      AddEnding(entry, &found);
      SortOnce(&found);
    }
  } else if (matching == Matching::kEnd) {
    AddEnding(entry, &found);
    SortOnce(&found);
  } else if (matching != Matching::kClass) {
    auto status = FindMatches(entry, matching, views_, budget,
                              [&](size_t index) { found.push_back(static_cast<uint32_t>(index)); });
    if (!status) return status.errors();
  }
  return found;
}

}  // namespace quantport
