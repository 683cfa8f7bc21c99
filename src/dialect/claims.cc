#include "dialect/claims.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "base/text.h"
#include "dialect/entry.h"
#include "dialect/module_names.h"

namespace quantport {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
// Deeper paths are no module names, and looking at each of their ends would be quadratic in their length.
constexpr size_t kMaxSegments = 64;

// Rules of one way of matching whose entries are names.
class NamedRules {
 public:
  void Add(std::string_view name, uint32_t rule) { rules_[name].push_back(rule); }
  const std::vector<uint32_t>* Find(std::string_view name) const {
    const auto it = rules_.find(name);
    return it == rules_.end() ? nullptr : &it->second;
  }
  bool empty() const { return rules_.empty(); }

 private:
  std::unordered_map<std::string_view, std::vector<uint32_t>> rules_;
};

class Matcher {
 public:
  Matcher(const ConfigClaims& claims, std::span<const NamedModule> modules)
      : claims_(claims), modules_(modules), first_(modules.size(), kNone) {
    matched_.rule_matches.resize(claims.rules.size());
  }

  Result<MatchedClaims> Run(MatchBudget* budget) {
    SortRules();
    for (uint32_t m = 0; m < modules_.size(); ++m) MatchNames(m);
    if (auto s = MatchPatterns(budget); !s) return s.errors();
    matched_.modules.reserve(modules_.size());
    for (uint32_t m = 0; m < modules_.size(); ++m) matched_.modules.push_back(Decide(m));
    return std::move(matched_);
  }

 private:
  void SortRules() {
    for (uint32_t r = 0; r < claims_.rules.size(); ++r) {
      const Rule& rule = claims_.rules[r];
      switch (rule.matching) {
        case Matching::kExact:
          exact_.Add(rule.entry, r);
          break;
        case Matching::kBelow:
          below_.Add(rule.entry, r);
          break;
        case Matching::kEnd:
          exact_.Add(rule.entry, r);
          end_.Add(rule.entry, r);
          break;
        case Matching::kSegments:
          if (HasSpecialCharacters(rule.entry)) {
            patterns_.push_back(r);
            break;
          }
          exact_.Add(rule.entry, r);
          below_.Add(rule.entry, r);
          end_.Add(rule.entry, r);
          break;
        case Matching::kClass:
          classes_.push_back(r);
          break;
        case Matching::kGlob:
        case Matching::kRegexStart:
        case Matching::kRegexSearch:
          patterns_.push_back(r);
          break;
      }
    }
  }

  void Hit(uint32_t module, uint32_t rule) {
    matched_.rule_matches[rule] = true;
    first_[module] = std::min(first_[module], rule);
  }

  // Doubles of an entry are told apart by their first only, or as many doubles as modules would be quadratic.
  void HitAll(uint32_t module, const std::vector<uint32_t>* rules) {
    if (rules == nullptr) return;
    Hit(module, rules->front());
    if (doubles_marked_.insert(rules).second) {
      for (const uint32_t rule : *rules) matched_.rule_matches[rule] = true;
    }
  }

  void MatchNames(uint32_t m) {
    const std::string_view name = modules_[m].name;
    HitAll(m, exact_.Find(name));
    size_t left = kMaxSegments;
    if (!below_.empty()) {
      for (size_t dot = name.find('.'); dot != std::string_view::npos && left-- > 0; dot = name.find('.', dot + 1))
        HitAll(m, below_.Find(name.substr(0, dot)));
    }
    left = kMaxSegments;
    if (!end_.empty()) {
      for (size_t dot = name.rfind('.'); dot != std::string_view::npos && left-- > 0;) {
        HitAll(m, end_.Find(name.substr(dot + 1)));
        dot = dot == 0 ? std::string_view::npos : name.rfind('.', dot - 1);
      }
    }
    for (const uint32_t rule : classes_) {
      if (IsOfClass(modules_[m].kind, claims_.rules[rule].entry)) Hit(m, rule);
    }
  }

  static bool IsOfClass(ModuleClass kind, std::string_view name) {
    switch (kind) {
      case ModuleClass::kLinear:
        return name == "Linear";
      case ModuleClass::kConvolution:
        return name.starts_with("Conv");
      case ModuleClass::kEmbedding:
        return name == "Embedding";
      case ModuleClass::kExperts:
      case ModuleClass::kOther:
        break;
    }
    return false;
  }

  Status MatchPatterns(MatchBudget* budget) {
    if (patterns_.empty()) return {};
    std::vector<uint32_t> sorted(modules_.size());
    std::iota(sorted.begin(), sorted.end(), 0U);
    std::sort(sorted.begin(), sorted.end(),
              [&](uint32_t a, uint32_t b) { return modules_[a].name < modules_[b].name; });
    std::vector<std::string_view> names;
    names.reserve(sorted.size());
    for (const uint32_t m : sorted) names.push_back(modules_[m].name);
    for (const uint32_t r : patterns_) {
      const Rule& rule = claims_.rules[r];
      auto status = FindMatches(rule.entry, rule.matching, names, budget, [&](size_t index) { Hit(sorted[index], r); });
      if (!status) return status;
    }
    return {};
  }

  Claim Decide(uint32_t m) const {
    const NamedModule& module = modules_[m];
    if (first_[m] != kNone) {
      const Rule& rule = claims_.rules[first_[m]];
      Says says = rule.says;
      // A name speaks of that module; a class or a pattern may hit what is no linear in the model.
      const bool named = rule.matching == Matching::kExact || rule.matching == Matching::kBelow;
      if (says == Says::kQuantized && !named && IsUsuallyLeftAlone(module.name)) says = Says::kEither;
      return {says, rule.scheme, &rule};
    }
    if (claims_.otherwise != Says::kQuantized) return {claims_.otherwise, claims_.default_scheme, nullptr};
    const bool covered =
        module.kind == ModuleClass::kLinear ||
        (claims_.convolutions && (module.kind == ModuleClass::kConvolution || module.kind == ModuleClass::kExperts));
    const bool outside = claims_.decoder_only && !IsInBlock(module.name);
    const bool either = !covered || outside || IsUsuallyLeftAlone(module.name);
    return {either ? Says::kEither : Says::kQuantized, claims_.default_scheme, nullptr};
  }

  // Below a numbered block.
  static bool IsInBlock(std::string_view name) {
    for (size_t dot = name.find('.'); dot != std::string_view::npos;) {
      const size_t next = name.find('.', dot + 1);
      if (next == std::string_view::npos) return false;
      if (IsDigits(name.substr(dot + 1, next - dot - 1))) return true;
      dot = next;
    }
    return false;
  }

  const ConfigClaims& claims_;
  std::span<const NamedModule> modules_;
  NamedRules exact_;
  NamedRules below_;
  NamedRules end_;
  std::vector<uint32_t> patterns_;
  std::vector<uint32_t> classes_;
  std::unordered_set<const std::vector<uint32_t>*> doubles_marked_;
  std::vector<uint32_t> first_;  // the first rule that matches each module
  MatchedClaims matched_;
};

}  // namespace

Result<MatchedClaims> MatchClaims(const ConfigClaims& claims, std::span<const NamedModule> modules,
                                  MatchBudget* budget) {
  return Matcher(claims, modules).Run(budget);
}

}  // namespace quantport
