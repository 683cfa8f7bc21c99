#include "plan/conversion.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "base/text.h"
#include "plan/ambiguity.h"
#include "plan/group_builder.h"
#include "plan/operations.h"
#include "plan/reference_check.h"

namespace quantport {
namespace {

constexpr size_t kExamples = 5;

// Names by reference where it knows them and by rule elsewhere, for keys that need not be in the export.
struct NameLookup {
  Renamer all;  // reversed, for finding stacked parameters
  RuleNames rules;
  std::optional<Inverse> inverse;

  std::string HubKey(const std::string& module) const {
    WeightUnit unit;
    unit.key = JoinName(module, "weight");
    unit.module = module;
    ExpertLocator locator(all);
    const EngineKey key = locator.Locate(unit);
    const size_t target = key.piece ? key.piece->part : 0;
    const uint64_t index = key.piece ? key.piece->index : 0;
    if (inverse) {
      if (const auto hit = inverse->Find(key.key)) {
        const auto& hub = hit->origin->hub;
        if (target < hub.size() && index < hub[target].size()) return hub[target][index];
      }
    }
    const RenamedKey renamed = rules.renamer().Probe(key.key);
    if (renamed.converter < 0) return renamed.name;
    const auto& targets = rules.renamer().converter(renamed.converter).targets();
    const auto found = FindTarget(renamed.name, targets);
    if (!found || target >= targets.size()) return renamed.name;
    return found->Name(targets[target], key.piece ? std::optional(index) : std::nullopt);
  }
};

// Carries the groups out, one after the other, and collects what comes of them.
class Converter {
 public:
  Converter(const ConversionInput& input, const Grouping& grouping, const NameLookup& lookup)
      : input_(input), units_(*input.units), grouping_(grouping), lookup_(lookup) {
    produced_.resize(grouping.groups.size());
    renamed_.resize(units_.size());
  }

  Result<Conversion> Run() {
    for (size_t g = 0; g < grouping_.groups.size(); ++g) {
      const Group& group = grouping_.groups[g];
      auto status = group.operations == nullptr ? Rename(g, group) : Convert(g, group);
      if (!status) Report(std::move(status.errors()), group);
    }
    for (const WeightUnit& unit : units_) {
      if (unit.role == UnitRole::kCacheScale) FollowWeight(unit);
    }
    for (size_t unit = 0; unit < units_.size(); ++unit) {
      if (renamed_[unit]) conversion_.renamed += units_[unit].tensors.size();
    }
    CheckCollisions();
    if (!errors_.empty()) return std::move(errors_);
    return std::move(conversion_);
  }

 private:
  static Error Unsupported(std::string message, std::string hint = {}) {
    return Error{ErrorKind::kQuantConversionUnsupported, std::move(message), {}, {}, std::move(hint)};
  }

  // An operation's error names no tensor; the group's first one is the best a user can look up.
  void Report(Errors errors, const Group& group) {
    std::string tensor = group.rule_name;
    for (const auto& inputs : group.inputs) {
      if (inputs.empty()) continue;
      tensor = units_[inputs[0].unit].key;
      break;
    }
    for (Error& error : errors) {
      if (error.tensor.empty()) error.tensor = tensor;
      errors_.push_back(std::move(error));
    }
  }

  Status Rename(size_t g, const Group& group) {
    for (const GroupInput& input : group.inputs[0]) {
      const WeightUnit& unit = units_[input.unit];
      auto name = group.Name(0, std::nullopt);
      if (!name) return name.errors();
      // The hub keeps these experts in one tensor: engines load 2-D linears below its container's path.
      std::string key = input.piece ? ExpertBelow(*name, unit, *input.piece) : *name;
      if (auto status = Emit(g, std::move(key), unit.style, unit.weight, unit.role, {input.unit}); !status)
        return status;
    }
    return {};
  }

  static std::string ExpertBelow(const std::string& hub_parameter, const WeightUnit& unit, const ExpertPiece& piece) {
    const std::string container(SplitLeaf(hub_parameter).module);
    return fmt::format("{}.{}.{}.weight", container, piece.index, SplitLeaf(unit.module).leaf);
  }

  Status Convert(size_t g, const Group& group) {
    if (auto status = CheckInputs(group); !status) return status;
    Strands strands;
    std::vector<size_t> sources;
    bool stacked = false;
    for (const auto& inputs : group.inputs) {
      std::vector<Entry> strand;
      for (const GroupInput& input : inputs) {
        auto weight = WithBias(input.unit, input.piece.has_value());
        if (!weight) return weight.errors();
        strand.push_back({std::move(*weight), input.piece, std::nullopt});
        sources.push_back(input.unit);
        stacked |= !input.piece;
      }
      strands.push_back(std::move(strand));
    }
    const NameStyle style = units_[sources[0]].style;
    const UnitRole role = units_[sources[0]].role;
    auto results =
        RunOperations(std::move(strands), *group.operations, group.targets, HubShape(group), &conversion_.checks);
    if (!results) return results.errors();
    if (results->size() > group.targets)
      return Unsupported("the operations give more tensors than the hub has names for");
    for (size_t target = 0; target < results->size(); ++target) {
      const std::vector<Entry>& entries = (*results)[target];
      const bool listed = !entries.empty() && entries[0].index.has_value();
      if (stacked && listed && group.origin != nullptr && group.origin->hub[target].size() != entries.size()) {
        return Error{ErrorKind::kReferenceMismatch,
                     fmt::format("the export stacks {} experts, the reference has {}", entries.size(),
                                 group.origin->hub[target].size()),
                     {},
                     {},
                     "is it the checkpoint this export was made from?"};
      }
      for (const Entry& entry : entries) {
        auto name = group.Name(target, entry.index);
        if (!name) return name.errors();
        if (auto status =
                Emit(g, std::move(*name), style, entry.weight, role, SourcesOf(sources, group, target, entry));
            !status)
          return status;
      }
    }
    const bool same = sources.size() == 1 && results->size() == 1 && (*results)[0].size() == 1 &&
                      (*results)[0][0].weight.shape == units_[sources[0]].weight.shape;
    if (stacked && !same) conversion_.cut += sources.size();
    return {};
  }

  // The reference's shape of a group's only result, or null.
  const std::vector<uint64_t>* HubShape(const Group& group) const {
    if (group.origin == nullptr || group.targets != 1 || group.origin->hub[0].size() != 1) return nullptr;
    const auto shape = input_.reference->logical_shapes.find(group.origin->hub[0][0]);
    return shape == input_.reference->logical_shapes.end() ? nullptr : &shape->second;
  }

  // The units a result was made of: one expert's own piece where they are stored expanded, else all of the group's.
  std::vector<size_t> SourcesOf(const std::vector<size_t>& all, const Group& group, size_t target,
                                const Entry& entry) const {
    for (const GroupInput& input : group.inputs[0]) {
      if (!input.piece) return all;
      const bool same_part = input.piece->parts == 1 || input.piece->part == target;
      if (entry.index == input.piece->index && same_part) return {input.unit};
    }
    return all;
  }

  Status CheckInputs(const Group& group) {
    const bool merges_lists = std::holds_alternative<MergeModulelistOp>(group.operations->front());
    for (const auto& inputs : group.inputs) {
      if (inputs.empty()) return Unsupported("a part of the fused tensor is missing from the export");
      std::set<std::pair<uint64_t, uint64_t>> seen;
      if (auto status = CheckOneForm(inputs); !status) return status;
      for (const GroupInput& input : inputs) {
        const bool twice = input.piece ? !seen.emplace(input.piece->index, input.piece->part).second
                                       : inputs.size() > 1 && !merges_lists;
        if (twice) return Collision(inputs[0].unit, input.unit == inputs[0].unit ? inputs[1].unit : input.unit);
      }
    }
    return {};
  }

  Status CheckOneForm(const std::vector<GroupInput>& inputs) const {
    const auto expanded =
        std::find_if(inputs.begin(), inputs.end(), [](const GroupInput& i) { return i.piece.has_value(); });
    const auto stacked = std::find_if(inputs.begin(), inputs.end(), [](const GroupInput& i) { return !i.piece; });
    if (expanded == inputs.end() || stacked == inputs.end()) return {};
    return Unsupported(fmt::format("{} is stacked and {} expanded: one container holds its experts both ways",
                                   units_[stacked->unit].key, units_[expanded->unit].key));
  }

  Error Collision(size_t a, size_t b) const {
    return Error{ErrorKind::kNameCollision,
                 fmt::format("{} would become the same hub tensor", units_[b].key),
                 {},
                 units_[a].key,
                 {}};
  }

  // The weight of a unit, with the bias that goes along with it as one more stored tensor.
  Result<LogicalWeight> WithBias(size_t unit, bool piece) const {
    LogicalWeight weight = units_[unit].weight;
    const auto it = grouping_.attached_bias.find(unit);
    if (it == grouping_.attached_bias.end()) return weight;
    StoredPart bias = units_[it->second].weight.parts[0];
    const std::vector<uint64_t>& shape = bias.array.shape;
    // [out], or [E, out] beside stacked experts: the weight's leading dimensions.
    const bool fits =
        shape.size() < weight.shape.size() && std::equal(shape.begin(), shape.end(), weight.shape.begin());
    if (!fits)
      return Unsupported(fmt::format("the bias of shape [{}] does not fit a weight of shape [{}]{}",
                                     fmt::join(shape, ", "), fmt::join(weight.shape, ", "),
                                     piece ? " of one expert" : ""));
    bias.leaf = "bias";
    bias.axes.assign(weight.shape.size(), std::nullopt);
    for (size_t dim = 0; dim < shape.size(); ++dim) bias.axes[dim] = Axis{dim, 1};
    weight.parts.push_back(std::move(bias));
    return weight;
  }

  Status Emit(size_t g, std::string key, NameStyle style, const LogicalWeight& weight, UnitRole role,
              const std::vector<size_t>& sources) {
    const bool module_style = key.ends_with(".weight") || key == "weight";
    if (!module_style && style == NameStyle::kModule && role == UnitRole::kValue && weight.parts.size() > 1) {
      return Unsupported(fmt::format(
          "the hub stores this weight as the bare parameter {}, which has no convention for the names of its scales",
          key));
    }
    for (size_t p = 0; p < weight.parts.size(); ++p) {
      const StoredPart& part = weight.parts[p];
      conversion_.tensors.push_back(
          {PartName(key, module_style, role, part, p == 0), part.array, weight.layout, FirstShard(part.array)});
    }
    produced_[g].push_back(key);
    for (const size_t source : sources) {
      const WeightUnit& unit = units_[source];
      if (unit.key != key) renamed_[source] = true;
      if (role == UnitRole::kValue && OwnsWeight(unit)) AddModule(unit.module, std::string(SplitLeaf(key).module));
    }
    if (const StoredPart* bias = weight.Find("bias"); bias != nullptr && role == UnitRole::kValue) {
      conversion_.weights.push_back({PartName(key, module_style, role, *bias, false), units_[sources[0]].key,
                                     UnitRole::kBias, Layout::kPlain, bias->array.shape});
    }
    conversion_.weights.push_back({std::move(key), units_[sources[0]].key, role, weight.layout, weight.shape});
    return {};
  }

  // Every stored tensor stays in its shard, scales that a shard's border parted from their weight included.
  uint32_t FirstShard(const Array& array) const { return input_.table->tensors[array.blocks.at(0).tensor].shard; }

  static std::string PartName(const std::string& key, bool module_style, UnitRole role, const StoredPart& part,
                              bool value) {
    if (role == UnitRole::kBias) return key;
    if (value && (part.leaf.empty() || part.leaf == "weight")) return key;
    return PartTensorName(key, module_style ? NameStyle::kModule : NameStyle::kParameter, part.leaf);
  }

  // Config files speak of linears, embeddings and norms, which own a weight, and of containers of stacked experts.
  static bool OwnsWeight(const WeightUnit& unit) {
    return unit.style == NameStyle::kModule || unit.weight.shape.size() == 3 || unit.weight.parts.size() > 1;
  }

  void AddModule(const std::string& in_memory, std::string hub) {
    if (modules_seen_.insert(in_memory + '\n' + hub).second) conversion_.modules[in_memory].push_back(std::move(hub));
  }

  // k_scale and v_scale are the attention's: they go where their projection goes, whole, to one place.
  void FollowWeight(const WeightUnit& unit) {
    std::string key = unit.key;
    if (const auto owner = grouping_.unit_of_key.find(unit.owner); owner != grouping_.unit_of_key.end()) {
      key = ClosestProduct(produced_[grouping_.group_of[owner->second]], unit.weight.parts[0].leaf).value_or(key);
    } else {
      key = lookup_.HubKey(std::string(SplitLeaf(unit.key).module));
    }
    const std::string& leaf = unit.weight.parts[0].leaf;
    std::string name = JoinName(SplitLeaf(key).module, leaf);
    renamed_[static_cast<size_t>(&unit - units_.data())] = name != input_.table->tensors[unit.tensors[0]].info.name;
    conversion_.tensors.push_back(
        {std::move(name), unit.weight.parts[0].array, Layout::kPlain, input_.table->tensors[unit.tensors[0]].shard});
  }

  // Of the linears a projection became, the one the scale is named after: k_scale goes to k_proj.
  static std::optional<std::string> ClosestProduct(const std::vector<std::string>& keys, const std::string& leaf) {
    if (keys.empty()) return std::nullopt;
    const auto it = std::find_if(keys.begin(), keys.end(), [&](const std::string& key) {
      return SplitLeaf(SplitLeaf(key).module).leaf.starts_with(leaf.substr(0, 1));
    });
    return it == keys.end() ? keys.front() : *it;
  }

  void CheckCollisions() {
    std::unordered_map<std::string_view, const ConvertedTensor*> seen;
    seen.reserve(conversion_.tensors.size() * 2);
    for (const ConvertedTensor& tensor : conversion_.tensors) {
      const auto [it, fresh] = seen.emplace(tensor.name, &tensor);
      if (fresh) continue;
      errors_.push_back({ErrorKind::kNameCollision,
                         fmt::format("both {} and {} would get this name", SourceName(*it->second), SourceName(tensor)),
                         {},
                         tensor.name,
                         {}});
    }
  }

  const std::string& SourceName(const ConvertedTensor& tensor) const {
    return input_.table->tensors[tensor.array.blocks.at(0).tensor].info.name;
  }

  const ConversionInput& input_;
  const std::vector<WeightUnit>& units_;
  const Grouping& grouping_;
  const NameLookup& lookup_;
  std::vector<std::vector<std::string>> produced_;  // for each group, the hub keys it gave
  std::unordered_set<std::string> modules_seen_;    // pairs in conversion_.modules
  std::vector<bool> renamed_;                       // for each unit: some tensor of its went under another name
  Conversion conversion_;
  Errors errors_;
};

std::vector<EngineKey> LocateKeys(const std::vector<WeightUnit>& units, const Renamer& reverse) {
  ExpertLocator locator(reverse);
  std::vector<EngineKey> keys;
  keys.reserve(units.size());
  for (const WeightUnit& unit : units) keys.push_back(locator.Locate(unit));
  return keys;
}

// How many names the reversed rules, all of them taken as used, would give otherwise than the reference does.
void CountDifferences(const Grouping& grouping, const std::vector<EngineKey>& keys, const RuleNames& all_rules,
                      Conversion* conversion) {
  std::set<const Group*> counted;
  for (size_t unit = 0; unit < keys.size(); ++unit) {
    const size_t g = grouping.group_of[unit];
    if (g == Grouping::npos || !counted.insert(&grouping.groups[g]).second) continue;
    const Group& group = grouping.groups[g];
    if (group.origin == nullptr) continue;
    const RenamedKey& renamed = all_rules.Find(keys[unit].key);
    std::string by_rule = renamed.name;
    if (renamed.converter >= 0) {
      const auto& targets = all_rules.renamer().converter(renamed.converter).targets();
      if (const auto found = FindTarget(renamed.name, targets)) by_rule = found->Name(targets[0], 0);
    }
    if (by_rule == group.rule_name) continue;
    ++conversion->rules_differ;
    if (conversion->rules_differ_examples.size() < kExamples)
      conversion->rules_differ_examples.push_back(fmt::format("{} (rules: {})", group.rule_name, by_rule));
  }
}

}  // namespace

Result<Conversion> RevertNames(const ConversionInput& input) {
  const std::vector<Transform>& transforms = input.model->transforms;
  auto reverse = Renamer::Create(transforms, Renamer::Direction::kSave);
  if (!reverse) return reverse.errors();
  const std::vector<EngineKey> keys = LocateKeys(*input.units, *reverse);
  auto all_rules = RuleNames::Create(transforms, keys);
  if (!all_rules) return all_rules.errors();
  if (HasHubNames(*input.units, keys, *all_rules, input.reference)) {
    Conversion kept = KeepNames(*input.table, *input.units);
    kept.already_hub = true;
    if (input.reference == nullptr) return kept;
    if (Errors errors = CheckAgainstReference(*input.reference, input.model->tied_weights, &kept); !errors.empty()) {
      return errors;
    }
    return kept;
  }

  auto lookup = std::make_shared<NameLookup>(NameLookup{std::move(*reverse), std::move(*all_rules), std::nullopt});
  std::optional<RuleNames> every_rule;
  if (input.reference != nullptr) {
    std::unordered_set<std::string> in_memory;
    for (const EngineKey& key : keys) in_memory.insert(key.key);
    auto inverse =
        Inverse::Build({transforms, input.legacy, input.model->base_model_prefix, &input.reference->keys, &in_memory});
    if (!inverse) return inverse.errors();
    // transformers reverses a transform only if it was used at load.
    auto used = RuleNames::Create(inverse->used(), keys);
    if (!used) return used.errors();
    lookup->inverse = std::move(*inverse);
    every_rule = std::exchange(lookup->rules, std::move(*used));
  }
  const Grouping grouping =
      BuildGroups(*input.units, keys, lookup->rules, lookup->inverse ? &*lookup->inverse : nullptr);
  auto conversion = Converter(input, grouping, *lookup).Run();
  if (!conversion) return conversion.errors();
  conversion->already_hub = conversion->renamed == 0 && conversion->cut == 0;
  conversion->rename_module = [lookup](const std::string& module) {
    return std::string(SplitLeaf(lookup->HubKey(module)).module);
  };
  if (input.reference != nullptr) {
    CountDifferences(grouping, keys, *every_rule, &*conversion);
    if (Errors errors = CheckAgainstReference(*input.reference, input.model->tied_weights, &*conversion);
        !errors.empty())
      return errors;
  } else {
    CountAmbiguous(keys, lookup->rules, input.model->submodels, &*conversion);
  }
  return conversion;
}

Conversion KeepNames(const TensorTable& table, const std::vector<WeightUnit>& units) {
  Conversion kept;
  kept.rename_module = [](const std::string& module) { return module; };
  std::vector<Layout> layouts(table.tensors.size(), Layout::kPlain);
  for (const WeightUnit& unit : units) {
    for (const uint32_t tensor : unit.tensors) layouts[tensor] = unit.weight.layout;
    if (unit.role != UnitRole::kCacheScale)
      kept.weights.push_back({unit.key, unit.key, unit.role, unit.weight.layout, unit.weight.shape});
    if (unit.role == UnitRole::kValue && unit.style == NameStyle::kModule) kept.modules[unit.module] = {unit.module};
  }
  for (uint32_t i = 0; i < table.tensors.size(); ++i) {
    const StoredTensor& tensor = table.tensors[i];
    kept.tensors.push_back(
        {tensor.info.name, WholeTensor(i, tensor.info.dtype, tensor.info.shape), layouts[i], tensor.shard});
  }
  return kept;
}

}  // namespace quantport
