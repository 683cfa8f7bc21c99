#include "plan/group_builder.h"

#include <algorithm>

#include "base/text.h"

namespace quantport {
namespace {

class GroupBuilder {
 public:
  GroupBuilder(const std::vector<WeightUnit>& units, const std::vector<EngineKey>& keys, const RuleNames& rules,
               const Inverse* inverse)
      : units_(units), keys_(keys), rules_(rules), inverse_(inverse) {
    grouping_.group_of.assign(units.size(), Grouping::npos);
  }

  Grouping Build() {
    for (size_t i = 0; i < units_.size(); ++i) {
      if (units_[i].role == UnitRole::kValue) {
        grouping_.unit_of_key.emplace(units_[i].key, i);
        if (!units_[i].IsStray()) Place(i);
      }
    }
    for (size_t i = 0; i < units_.size(); ++i) {
      if (units_[i].IsStray()) PlaceStray(i);
    }
    for (size_t i = 0; i < units_.size(); ++i) {
      if (units_[i].role == UnitRole::kBias) PlaceBias(i);
    }
    return std::move(grouping_);
  }

 private:
  void Place(size_t unit) {
    const EngineKey& key = keys_[unit];
    if (inverse_ != nullptr) {
      if (const auto hit = inverse_->Find(key.key)) return PlaceByOrigin(unit, *hit);
    }
    const RenamedKey& renamed = rules_.Find(key.key);
    if (renamed.converter < 0) {
      PlaceRename(unit, renamed.name);
      return;
    }
    const CompiledTransform& converter = rules_.renamer().converter(renamed.converter);
    const std::string id = std::to_string(renamed.converter) + "\n" + renamed.name;
    const auto [it, fresh] = by_rule_.emplace(id, grouping_.groups.size());
    if (fresh) {
      Group group;
      group.converter = &converter.transform();
      group.targets = converter.targets().size();
      group.inputs.resize(converter.sources().size());
      group.rule_name = renamed.name;
      group.rule_targets = &converter.targets();
      group.rule_template = FindTarget(renamed.name, converter.targets());
      grouping_.groups.push_back(std::move(group));
    }
    Join(unit, it->second, renamed.source, renamed.number);
  }

  // The pieces of a stacked parameter go together, any other name alone.
  void PlaceRename(size_t unit, const std::string& name) {
    const EngineKey& key = keys_[unit];
    if (key.piece) {
      const auto [it, fresh] = by_rule_.emplace("\n" + name, grouping_.groups.size());
      if (!fresh) return Join(unit, it->second, 0);
    }
    Group group;
    group.rule_name = name;
    group.inputs = {{GroupInput{unit, key.piece}}};
    Append(unit, std::move(group));
  }

  void PlaceByOrigin(size_t unit, const Inverse::Hit& hit) {
    const Origin& origin = *hit.origin;
    const auto [it, fresh] = by_origin_.emplace(&origin, grouping_.groups.size());
    if (fresh) {
      Group group;
      group.origin = &origin;
      group.rule_name = origin.hub[0].empty() ? origin.in_memory[0] : origin.hub[0][0];
      group.targets = origin.hub.size();
      group.inputs.resize(origin.in_memory.size());
      if (origin.converter != nullptr) {
        grouping_.reversed.push_back(std::make_unique<Transform>(ReverseTransform(*origin.converter)));
        group.converter = grouping_.reversed.back().get();
      }
      grouping_.groups.push_back(std::move(group));
    }
    Join(unit, it->second, hit.position);
  }

  // A bias has a name of its own in the mapping, but where that name says nothing while its weight is cut or fused
  // (the mapping's pattern ends in ".weight"), it goes with the weight: left behind it would fit no linear.
  void PlaceBias(size_t unit) {
    const auto owner = grouping_.unit_of_key.find(units_[unit].owner);
    const Group* group = owner == grouping_.unit_of_key.end() || grouping_.group_of[owner->second] == Grouping::npos
                             ? nullptr
                             : &grouping_.groups[grouping_.group_of[owner->second]];
    const bool moves = group != nullptr && (group->converter != nullptr || keys_[owner->second].piece);
    if (moves && GoesAlong(unit, owner->second, *group)) {
      grouping_.attached_bias.emplace(owner->second, unit);
      return;
    }
    Place(unit);
  }

  // True where a bias has no converter of its own. The unanchored pattern of stacked experts matches "<parameter>_bias"
  // by accident: it would unstack the bias and name it "w1.weight_bias".
  bool GoesAlong(size_t bias, size_t weight, const Group& group) const {
    if (keys_[bias].piece) return true;
    if (inverse_ != nullptr) {
      if (const auto hit = inverse_->Find(keys_[bias].key)) return hit->origin->converter == nullptr;
    }
    const int own = rules_.Find(keys_[bias].key).converter;
    return own < 0 || (SplitsExperts(group.converter->operations) && own == rules_.Find(keys_[weight].key).converter);
  }

  // What stands below a module goes where its weight goes, unless the mapping has a name for it: a transform that fires
  // on it and not on the weight (a router's e_score_correction_bias). With fewer of them its name would be half
  // changed.
  void PlaceStray(size_t unit) {
    const auto owner = grouping_.unit_of_key.find(units_[unit].owner);
    if (owner == grouping_.unit_of_key.end() || HasOwnName(unit, owner->second)) return Place(unit);
    grouping_.followers[owner->second].push_back(unit);
  }

  bool HasOwnName(size_t stray, size_t owner) const {
    if (inverse_ != nullptr && inverse_->Find(keys_[stray].key)) return true;
    const RenamedKey& own = rules_.Find(keys_[stray].key);
    const RenamedKey& weight = rules_.Find(keys_[owner].key);
    const auto fires = [](const RenamedKey& key, uint32_t transform) {
      return std::find(key.fired.begin(), key.fired.end(), transform) != key.fired.end();
    };
    const auto all = [&](const RenamedKey& a, const RenamedKey& b) {
      return std::all_of(a.fired.begin(), a.fired.end(), [&](uint32_t transform) { return fires(b, transform); });
    };
    if (!all(own, weight)) return true;
    return all(weight, own) && own.converter < 0;  // the same all along: both go the same way
  }

  void Append(size_t unit, Group group) {
    grouping_.group_of[unit] = grouping_.groups.size();
    grouping_.groups.push_back(std::move(group));
  }

  void Join(size_t unit, size_t group, size_t position, std::optional<uint64_t> number = {}) {
    grouping_.group_of[unit] = group;
    grouping_.groups[group].inputs[position].push_back({unit, keys_[unit].piece, number});
  }

  const std::vector<WeightUnit>& units_;
  const std::vector<EngineKey>& keys_;
  const RuleNames& rules_;
  const Inverse* inverse_;
  Grouping grouping_;
  std::unordered_map<std::string, size_t> by_rule_;
  std::unordered_map<const Origin*, size_t> by_origin_;
};

}  // namespace

Grouping BuildGroups(const std::vector<WeightUnit>& units, const std::vector<EngineKey>& keys, const RuleNames& rules,
                     const Inverse* inverse) {
  return GroupBuilder(units, keys, rules, inverse).Build();
}

}  // namespace quantport
