#include "verify/exclude_lists.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "dialect/entry.h"

namespace quantport {
namespace {

Matching LenientMatching(std::string_view entry) {
  return IsRegex(entry) ? Matching::kRegexStart : IsGlob(entry) ? Matching::kGlob : Matching::kSegments;
}

bool NamesHead(std::string_view entry) {
  while (!entry.empty() && (entry.back() == '*' || entry.back() == '$' || entry.back() == '.')) entry.remove_suffix(1);
  return entry.ends_with("lm_head");
}

bool MayStandAnywhere(std::string_view entry) {
  if (IsRegex(entry)) entry.remove_prefix(kRegexPrefix.size());
  return entry.starts_with("*") || entry.starts_with(".*");
}

}  // namespace

Result<std::vector<std::string>> WithoutModule(std::vector<std::string> entries, std::span<const NamedModule> modules,
                                               MatchBudget* budget) {
  ConfigClaims lenient;
  for (std::string& entry : entries) {
    const Matching matching = LenientMatching(entry);
    lenient.rules.push_back({std::move(entry), matching, Says::kPlain, 0});
  }
  const auto matched = MatchClaims(lenient, modules, budget);
  if (!matched) return matched.errors();
  std::vector<std::string> without;
  for (size_t r = 0; r < lenient.rules.size(); ++r) {
    if (!matched->rule_matches[r]) without.push_back(std::move(lenient.rules[r].entry));
  }
  return without;
}

Result<std::vector<std::string>> DeadEntries(const ConfigClaims& claims, const MatchedClaims& matched,
                                             std::span<const NamedModule> modules, MatchBudget* budget) {
  // As the dialect itself reads them: "model.layers.*.self_attn" is an expression to transformers.
  std::unordered_set<std::string_view> alive;
  for (size_t r = 0; r < claims.rules.size(); ++r) {
    if (matched.rule_matches[r]) alive.insert(claims.rules[r].entry);
  }
  std::vector<std::string> others;
  for (const std::string& entry : claims.excludes) {
    if (!alive.contains(entry)) others.push_back(entry);
  }
  return WithoutModule(std::move(others), modules, budget);
}

bool IsInOtherNamespace(const ConfigClaims& claims, const std::vector<std::string>& dead) {
  return dead.size() == claims.excludes.size() && std::any_of(dead.begin(), dead.end(), [](const std::string& entry) {
           return !NamesHead(entry) && !MayStandAnywhere(entry);
         });
}

}  // namespace quantport
