#include "plan/conversion.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "base/text.h"
#include "plan/ambiguity.h"
#include "plan/converter.h"
#include "plan/published_names.h"
#include "plan/reference_check.h"

namespace quantport {
namespace {

// Finds out which expert containers the hub keeps in one tensor.
class FusedContainers {
 public:
  static Result<FusedContainers> Create(const ConversionInput& input, const Renamer& reverse) {
    FusedContainers fused(reverse);
    if (input.reference == nullptr) return fused;
    fused.loaded_.emplace();
    auto load = Renamer::Create(input.model->transforms, Renamer::Direction::kLoad);
    if (!load) return load.errors();
    const StackedExperts stacked(*input.reference);
    for (const std::string& key : input.reference->keys) {
      if (!stacked.ContainerOfStacked(key).empty()) fused.loaded_->insert(load->Probe(key).name);
    }
    return fused;
  }

  // By the reference, or by a transform that speaks of this parameter and not of its experts' linears.
  bool operator()(const std::string& parameter) const {
    if (loaded_) return loaded_->contains(parameter);
    const auto [container, leaf] = SplitLeaf(parameter);
    const RenamedKey whole = reverse_.Probe(parameter);
    const RenamedKey linear = reverse_.Probe(fmt::format("{}.0.{}.weight", container, leaf));
    return std::any_of(whole.fired.begin(), whole.fired.end(), [&](uint32_t transform) {
      return std::find(linear.fired.begin(), linear.fired.end(), transform) == linear.fired.end();
    });
  }

 private:
  explicit FusedContainers(const Renamer& reverse) : reverse_(reverse) {}

  const Renamer& reverse_;
  std::optional<std::unordered_set<std::string>> loaded_;  // in-memory names of the reference's stacked tensors
};

// What locating needs of a unit, under the whole model's names.
WeightUnit InWhole(const WeightUnit& unit, const SubModelPlace& place) {
  WeightUnit out;
  out.key = place.Translate(unit.key);
  out.module = place.Translate(unit.module);
  out.style = unit.style;
  out.weight.shape = unit.weight.shape;
  return out;
}

// Of a part, only what loads below it can be missing.
void KeepPart(const SubModelPlace& place, const Renamer& load, std::vector<std::string>* keys) {
  std::erase_if(*keys, [&](const std::string& key) { return !load.Probe(key).name.starts_with(place.path + "."); });
}

Result<std::vector<EngineKey>> LocateKeys(const ConversionInput& input, const Renamer& reverse) {
  std::function<bool(const std::string&)> is_fused;
  if (input.stack_experts) {
    auto fused = FusedContainers::Create(input, reverse);
    if (!fused) return fused.errors();
    is_fused = std::move(*fused);
  }
  ExpertLocator locator(reverse, std::move(is_fused));
  std::vector<EngineKey> keys;
  keys.reserve(input.units->size());
  for (const WeightUnit& unit : *input.units)
    keys.push_back(locator.Locate(input.place ? InWhole(unit, *input.place) : unit));
  return keys;
}

// True where some piece's experts the hub keeps in one tensor.
bool AssemblesAny(const std::vector<EngineKey>& keys, const Renamer& reverse) {
  return std::any_of(keys.begin(), keys.end(), [&](const EngineKey& key) {
    if (!key.piece) return false;
    const RenamedKey renamed = reverse.Probe(key.key);
    return renamed.converter < 0 || !SplitsExperts(reverse.converter(renamed.converter).transform().operations);
  });
}

// What loading does to a whole checkpoint's names when the class and the checkpoint are not of the same kind: a base
// model's parameters get or lose the prefix that a model with a head has before them.
void FitBasePrefix(const ResolvedModel& model, const Renamer& reverse, RuleNames* rules) {
  if (model.base_model_prefix.empty()) return;
  const std::string prefix = model.base_model_prefix + ".";
  // TimmWrapper's inner model is no sub-model of transformers': there the mapping itself adds the prefix.
  const bool has_base = std::any_of(model.submodels.begin(), model.submodels.end(),
                                    [&](const SubModel& sub) { return sub.path == model.base_model_prefix; }) ||
                        std::any_of(model.transforms.begin(), model.transforms.end(), [&](const Transform& transform) {
                          return transform.prefix_to_add == model.base_model_prefix;
                        });
  const bool prefixed = rules->AnyName([&](const std::string& name) { return name.starts_with(prefix); });
  if (has_base && !prefixed) {
    // A head beside the base model has its name in memory already (DeepSeek-V4, whose hub has no prefix).
    const auto is_head = [&](const std::string& name) {
      return std::find(model.tied_weights.begin(), model.tied_weights.end(), name) != model.tied_weights.end();
    };
    rules->ForEachName([&](const std::string&, std::string* name) {
      if (!is_head(*name)) name->insert(0, prefix);
    });
    return;
  }
  rules->ForEachName([&](const std::string& hub, std::string* name) {
    if (!name->starts_with(prefix)) return;
    std::string stripped = name->substr(prefix.size());
    // A model with a head has names of its own beside its base model's: those that only so reverse to the hub's
    // (Tipsv2DptForDepthEstimation's head, which the hub keeps inside the backbone).
    if (!has_base || (reverse.Probe(*name).name != hub && reverse.Probe(stripped).name == hub))
      *name = std::move(stripped);
  });
}

// The names that the reversed rules, all of them taken as used, would give otherwise than the reference does.
void ListDifferences(const Grouping& grouping, const std::vector<EngineKey>& keys, const RuleNames& all_rules,
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
    conversion->rules_differ.push_back({keys[unit].key, group.rule_name, by_rule});
  }
}

Result<Inverse> InverseOf(const ConversionInput& input, const std::vector<EngineKey>& keys,
                          const ReferenceView& reference) {
  std::unordered_set<std::string> in_memory;
  for (const EngineKey& key : keys) in_memory.insert(key.key);
  return Inverse::Build(
      {input.model->transforms, input.legacy, input.model->base_model_prefix, &reference.keys, &in_memory});
}

// The keys that no hub name is known for.
std::vector<EngineKey> UnknownTo(const std::optional<Inverse>& inverse, const std::vector<EngineKey>& keys) {
  if (!inverse) return keys;
  std::vector<EngineKey> unknown;
  std::copy_if(keys.begin(), keys.end(), std::back_inserter(unknown),
               [&](const EngineKey& key) { return !inverse->Find(key.key); });
  return unknown;
}

// The reference wins over what is known of the published names, but it may be another model's.
Status WarnOfContradictions(const ConversionInput& input, const std::vector<EngineKey>& keys,
                            const ReferenceView& published, const Inverse& by_reference, Conversion* conversion) {
  auto expected = InverseOf(input, keys, published);
  if (!expected) return expected.errors();
  Warning warning{
      "reference-not-as-published",
      fmt::format("the reference has other names than {} publishes; the reference's are taken", input.published->hub),
      0,
      {},
      "is it the hub checkpoint?"};
  const auto first = [](const Inverse::Hit& hit) {
    for (const auto& names : hit.origin->hub) {
      if (!names.empty()) return names.front();
    }
    return std::string();
  };
  std::unordered_set<std::string_view> seen;
  for (const EngineKey& key : keys) {
    if (!seen.insert(key.key).second) continue;
    const auto theirs = by_reference.Find(key.key);
    const auto known = expected->Find(key.key);
    if (!theirs || !known || first(*theirs) == first(*known)) continue;
    AddName(fmt::format("{} for {}", first(*theirs), first(*known)), &warning);
  }
  if (warning.count > 0) conversion->warnings.push_back(std::move(warning));
  return {};
}

}  // namespace

Result<Conversion> RevertNames(const ConversionInput& input) {
  const std::vector<Transform>& transforms = input.model->transforms;
  auto reverse = Renamer::Create(transforms, Renamer::Direction::kSave);
  if (!reverse) return reverse.errors();
  auto located = LocateKeys(input, *reverse);
  if (!located) return located.errors();
  const std::vector<EngineKey>& keys = *located;
  auto all_rules = RuleNames::Create(transforms, Renamer::Direction::kSave, keys);
  if (!all_rules) return all_rules.errors();
  std::optional<ReferenceView> published;
  if (input.published != nullptr) {
    auto expanded = ExpandPublishedNames(*input.published, input, keys);
    if (!expanded) return expanded.errors();
    published = std::move(*expanded);
  }
  // What is known of a hub guides where the hub itself does not: it tells no names that it should have.
  ConversionInput guided = input;
  const bool weak = input.reference == nullptr && published && !published->keys.empty();
  if (weak) guided.reference = &*published;
  const bool assembles = input.stack_experts && AssemblesAny(keys, *reverse);
  const bool hub_names = HasHubNames(*input.units, keys, *all_rules, guided.reference) ||
                         (weak && HasHubNames(*input.units, keys, *all_rules, nullptr));
  if (!assembles && hub_names) {
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
  std::vector<uint32_t> used_transforms;
  if (guided.reference != nullptr) {
    auto inverse = InverseOf(input, keys, *guided.reference);
    if (!inverse) return inverse.errors();
    // transformers reverses a transform only if it was used at load.
    auto used = RuleNames::Create(inverse->used(), Renamer::Direction::kSave, keys);
    if (!used) return used.errors();
    used_transforms = inverse->used_indices();
    lookup->inverse = std::move(*inverse);
    every_rule = std::exchange(lookup->rules, std::move(*used));
  }
  const Grouping grouping =
      BuildGroups(*input.units, keys, lookup->rules, lookup->inverse ? &*lookup->inverse : nullptr);
  auto conversion = RunGroups(guided, grouping, *lookup);
  if (!conversion) return conversion.errors();
  conversion->already_hub = conversion->renamed == 0 && conversion->cut == 0;
  conversion->rename_module = [lookup, place = input.place](const std::string& module) {
    return std::string(SplitLeaf(lookup->NewKey(place ? place->Translate(module) : module)).module);
  };
  if (guided.reference != nullptr) ListDifferences(grouping, keys, *every_rule, &*conversion);
  if (input.reference != nullptr) {
    conversion->used_transforms = std::move(used_transforms);
    if (published) {
      if (auto s = WarnOfContradictions(input, keys, *published, *lookup->inverse, &*conversion); !s) return s.errors();
    }
    if (Errors errors = CheckAgainstReference(*input.reference, input.model->tied_weights, &*conversion);
        !errors.empty())
      return errors;
    if (input.place) {
      auto load = Renamer::Create(transforms, Renamer::Direction::kLoad);
      if (!load) return load.errors();
      KeepPart(*input.place, *load, &conversion->only_in_reference);
    }
  } else {
    CountAmbiguous(UnknownTo(lookup->inverse, keys), lookup->rules, input.model->submodels, &*conversion);
  }
  return conversion;
}

Result<Conversion> ApplyNames(const ConversionInput& input) {
  std::vector<Transform> transforms = input.model->transforms;
  std::copy_if(input.legacy.begin(), input.legacy.end(), std::back_inserter(transforms),
               [](const Transform& transform) { return transform.kind != TransformKind::kWeightConverter; });
  std::vector<EngineKey> keys;
  for (const WeightUnit& unit : *input.units) keys.push_back({unit.key, std::nullopt});
  auto rules = RuleNames::Create(transforms, Renamer::Direction::kLoad, keys);
  if (!rules) return rules.errors();
  auto reverse = Renamer::Create(input.model->transforms, Renamer::Direction::kSave);
  if (!reverse) return reverse.errors();
  FitBasePrefix(*input.model, *reverse, &*rules);
  auto load = Renamer::Create(transforms, Renamer::Direction::kLoad);
  if (!load) return load.errors();
  const auto lookup = std::make_shared<NameLookup>(NameLookup{std::move(*load), std::move(*rules), std::nullopt});
  const Grouping grouping = BuildGroups(*input.units, keys, lookup->rules, nullptr);
  auto conversion = RunGroups(input, grouping, *lookup);
  if (!conversion) return conversion.errors();
  conversion->already_hub = conversion->renamed == 0 && conversion->cut == 0;
  conversion->rename_module = [lookup](const std::string& module) {
    return std::string(SplitLeaf(lookup->NewKey(module)).module);
  };
  return conversion;
}

Conversion KeepNames(const TensorTable& table, const std::vector<WeightUnit>& units) {
  Conversion kept;
  kept.rename_module = [](const std::string& module) { return module; };
  std::vector<FormatId> layouts(table.tensors.size(), FormatId::kPlain);
  kept.tensors.reserve(table.tensors.size());
  kept.weights.reserve(units.size());
  // Modules come mostly in the order of the map.
  auto hint = kept.modules.end();
  for (const WeightUnit& unit : units) {
    for (const uint32_t tensor : unit.tensors) layouts[tensor] = unit.weight.format;
    if (unit.role != UnitRole::kCacheScale)
      kept.weights.push_back({unit.key, unit.key, unit.role, unit.weight.format, unit.weight.shape});
    if (unit.role != UnitRole::kValue || unit.style != NameStyle::kModule) continue;
    hint = std::next(kept.modules.try_emplace(hint, unit.module, std::vector{unit.module}));
  }
  for (uint32_t i = 0; i < table.tensors.size(); ++i) {
    const StoredTensor& tensor = table.tensors[i];
    kept.tensors.push_back(
        {tensor.info.name, WholeTensor(i, tensor.info.dtype, tensor.info.shape), layouts[i], tensor.shard});
  }
  return kept;
}

}  // namespace quantport
