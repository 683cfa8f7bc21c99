#include "plan/groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <variant>

#include "base/text.h"

namespace quantport {
namespace {

// The parameter that holds kGateUpLinears side by side.
constexpr std::string_view kGateUp = "gate_up_proj";

}  // namespace

bool SplitsExperts(const std::vector<Operation>& operations) {
  return std::any_of(operations.begin(), operations.end(), [](const Operation& operation) {
    return std::holds_alternative<SplitModulelistOp>(operation) ||
           std::holds_alternative<ErnieSplitAndDecoupleOp>(operation);
  });
}

bool TakesLists(const std::vector<Operation>& operations) {
  if (operations.empty()) return false;
  const Operation& first = operations.front();
  const auto* concatenate = std::get_if<ConcatenateOp>(&first);
  return std::holds_alternative<MergeModulelistOp>(first) || std::holds_alternative<ErnieFuseAndSplitOp>(first) ||
         (concatenate != nullptr && concatenate->num_shards_attribute.has_value());
}

Result<std::string> Group::Name(size_t target, std::optional<uint64_t> index) const {
  if (origin != nullptr) {
    const std::vector<std::string>& names = origin->hub[target];
    const uint64_t entry = index.value_or(0);
    if (entry >= names.size()) {
      return Error{ErrorKind::kReferenceMismatch,
                   fmt::format("the export has expert {}, the reference only {}", entry, names.size()),
                   {},
                   names.empty() ? rule_name : names[0],
                   "is it the checkpoint this export was made from?"};
    }
    return names[entry];
  }
  if (converter == nullptr) return rule_name;
  if (!rule_template) {
    // The only result there is needs no telling apart (Inkling 2's unembedding).
    if (rule_targets->size() == 1 && (*rule_targets)[0].find('*') == std::string::npos) return rule_name;
    return Error{ErrorKind::kQuantConversionUnsupported,
                 "a renaming changes the names that this converter gives its results, so they can't be told apart",
                 {},
                 rule_name,
                 "pass --reference HUB"};
  }
  return rule_template->Name((*rule_targets)[target], index);
}

EngineKey ExpertLocator::Locate(const WeightUnit& unit) {
  if (unit.style != NameStyle::kModule) return {unit.key, std::nullopt};
  const std::string_view module = SplitLeaf(unit.key).module;
  const auto [linear_path, leaf] = SplitLeaf(module);
  const auto [container, number] = SplitLeaf(linear_path);
  uint64_t index = 0;
  if (IsDigits(number) && std::from_chars(number.data(), number.data() + number.size(), index).ec == std::errc()) {
    for (uint64_t part = 0; part < kGateUpLinears.size(); ++part) {
      std::string parameter = JoinName(container, kGateUp);
      if (leaf == kGateUpLinears[part] && IsStackedParameter(parameter)) {
        return {std::move(parameter), ExpertPiece{index, part, kGateUpLinears.size()}};
      }
    }
    std::string parameter = JoinName(container, leaf);
    if (IsStackedParameter(parameter)) return {std::move(parameter), ExpertPiece{index, 0, 1}};
  }
  // A stacked parameter that a producer stores as "<parameter>.weight" with companions beside it.
  if (unit.weight.shape.size() == 3 && IsStackedParameter(std::string(module)))
    return {std::string(module), std::nullopt};
  return {unit.key, std::nullopt};
}

bool ExpertLocator::IsStackedParameter(const std::string& key) {
  const auto [it, fresh] = known_.emplace(key, false);
  if (fresh) {
    const RenamedKey renamed = reverse_.Probe(key);
    it->second =
        (renamed.converter >= 0 && SplitsExperts(reverse_.converter(renamed.converter).transform().operations)) ||
        (is_fused_ && is_fused_(key));
  }
  return it->second;
}

Result<RuleNames> RuleNames::Create(std::vector<Transform> transforms, Renamer::Direction direction,
                                    const std::vector<EngineKey>& keys) {
  RuleNames rules;
  rules.transforms_ = std::make_unique<std::vector<Transform>>(std::move(transforms));
  auto renamer = Renamer::Create(*rules.transforms_, direction);
  if (!renamer) return renamer.errors();
  rules.renamer_ = std::make_unique<Renamer>(std::move(*renamer));
  std::vector<std::string_view> sorted;
  sorted.reserve(keys.size());
  for (const EngineKey& key : keys) sorted.push_back(key.key);
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  std::sort(sorted.begin(), sorted.end(), DotNaturalLess);
  rules.names_.reserve(sorted.size() * 2);
  for (const std::string_view key : sorted) rules.names_.emplace(std::string(key), rules.renamer_->Rename(key));
  if (rules.renamer_->limit_exceeded()) {
    return Error{ErrorKind::kInvalidMapping,
                 "a pattern of the mapping takes too long to match the names of this checkpoint",
                 {},
                 {},
                 "simplify the nested repetitions of the mapping's patterns"};
  }
  return rules;
}

bool RuleNames::AnyName(const std::function<bool(const std::string&)>& test) const {
  return std::any_of(names_.begin(), names_.end(), [&](const auto& entry) { return test(entry.second.name); });
}

void RuleNames::ForEachName(const std::function<void(const std::string&, std::string*)>& change) {
  for (auto& [key, renamed] : names_) change(key, &renamed.name);
}

}  // namespace quantport
