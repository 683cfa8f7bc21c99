#include "plan/siblings.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace quantport {

std::optional<std::string> ClosestProduct(const std::vector<std::string>& keys, const std::string& leaf) {
  if (keys.empty()) return std::nullopt;
  const auto it = std::find_if(keys.begin(), keys.end(), [&](const std::string& key) {
    return SplitLeaf(SplitLeaf(key).module).leaf.starts_with(leaf.substr(0, 1));
  });
  return it == keys.end() ? keys.front() : *it;
}

Siblings::Siblings(const std::vector<WeightUnit>& units, const Grouping& grouping)
    : units_(units), grouping_(grouping) {
  const bool needed = std::any_of(units.begin(), units.end(),
                                  [](const WeightUnit& unit) { return unit.role == UnitRole::kCacheScale; });
  for (size_t u = 0; needed && u < units.size(); ++u) {
    const bool linear = units[u].role == UnitRole::kValue && units[u].style == NameStyle::kModule;
    if (linear) below_.emplace(SplitLeaf(units[u].module).module, u);
  }
}

std::optional<std::string> Siblings::KeyOf(std::string_view module,
                                           const std::vector<std::vector<std::string>>& produced) const {
  for (const std::string_view attention : {module, SplitLeaf(module).module}) {
    const auto found = attention.empty() ? below_.end() : below_.find(attention);
    if (found == below_.end() || grouping_.group_of[found->second] == Grouping::npos) continue;
    const std::vector<std::string>& keys = produced[grouping_.group_of[found->second]];
    const std::string_view leaf = SplitLeaf(units_[found->second].module).leaf;
    if (keys.size() != 1 || SplitLeaf(SplitLeaf(keys[0]).module).leaf != leaf) continue;
    const std::string_view moved = SplitLeaf(SplitLeaf(keys[0]).module).module;
    return JoinName(fmt::format("{}{}", moved, module.substr(attention.size())), "weight");
  }
  return std::nullopt;
}

}  // namespace quantport
