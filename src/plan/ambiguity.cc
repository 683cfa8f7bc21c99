#include "plan/ambiguity.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/text.h"
#include "plan/spelling.h"

namespace quantport {
namespace {

constexpr size_t kExamples = 5;

// "model.layers.12.mlp" -> "model.layers.#.mlp": layers and experts of one model are renamed alike, so that a
// question asked of one name need not be asked of its thousand siblings.
std::string WithoutNumbers(std::string_view name) {
  std::string out;
  for (const std::string_view part : SplitDots(name)) {
    if (!out.empty()) out += '.';
    out += IsDigits(part) ? std::string_view("#") : part;
  }
  return out;
}

// The name a hub tensor would have in memory, with the first of a list for "*".
std::string Load(const Renamer& load, std::string_view hub) { return load.Probe(ReplaceAll(hub, "*", "0")).name; }

// What one name says of the namespace it is from.
enum class Evidence { kNone, kInMemory, kHub, kEither };

Evidence Judge(const std::string& key, const RuleNames& rules, const Renamer& load) {
  const RenamedKey& reversed = rules.Find(key);
  const std::string loaded = Load(load, key);
  if (reversed.name == key) return loaded == key ? Evidence::kNone : Evidence::kHub;
  const std::string reloaded = Load(load, reversed.name);
  if (reloaded != key) {
    // Half reversed: it loads as its reversal does, and that is the hub's name. llm-compressor saves experts so, named
    // as in memory inside the hub's container.
    const bool half = loaded != key && reloaded == loaded && rules.renamer().Probe(loaded).name == reversed.name;
    return half ? Evidence::kInMemory : Evidence::kNone;
  }
  // Reversing undoes loading here, and loading would settle on another name: what "language_model" became on the hub,
  // "language_model.model", begins like the in-memory name and would be reversed a second time.
  const bool hub_too = loaded != key && rules.renamer().Probe(loaded).name == key && Load(load, loaded) == loaded;
  return hub_too ? Evidence::kEither : Evidence::kInMemory;
}

std::map<std::string, std::vector<const std::string*>> ByShape(const std::vector<EngineKey>& keys) {
  std::map<std::string, std::vector<const std::string*>> shapes;
  for (const EngineKey& key : keys) shapes[WithoutNumbers(key.key)].push_back(&key.key);
  return shapes;
}

}  // namespace

namespace {

// True for a weight whose name is the same on both sides while its shape is not that of the hub's: only its data shows
// that an operation (Transpose) was carried out on it.
bool IsReshaped(const WeightUnit& unit, const EngineKey& key, const RuleNames& rules, const ReferenceView& reference) {
  const RenamedKey& renamed = rules.Find(key.key);
  const auto shape = reference.logical_shapes.find(unit.key);
  return renamed.converter >= 0 && renamed.name == unit.key && unit.weight.format != FormatId::kUnrecognized &&
         shape != reference.logical_shapes.end() && shape->second != unit.weight.shape;
}

}  // namespace

bool HasHubNames(const std::vector<WeightUnit>& units, const std::vector<EngineKey>& keys, const RuleNames& rules,
                 const ReferenceView* reference) {
  if (IsSpelledOtherwise(units, reference)) return false;
  if (reference != nullptr) {
    for (size_t i = 0; i < units.size(); ++i) {
      if (units[i].role == UnitRole::kCacheScale) continue;
      if (!std::binary_search(reference->keys.begin(), reference->keys.end(), units[i].key)) return false;
      if (IsReshaped(units[i], keys[i], rules, *reference)) return false;
    }
    return true;
  }
  auto load = Renamer::Create(rules.transforms(), Renamer::Direction::kLoad);
  if (!load) return false;
  size_t in_memory = 0;
  size_t hub = 0;
  bool changes = false;
  for (const auto& [shape, names] : ByShape(keys)) {
    changes |= rules.Find(*names[0]).name != *names[0] || rules.Find(*names[0]).converter >= 0;
    const Evidence evidence = Judge(*names[0], rules, *load);
    in_memory += evidence == Evidence::kInMemory ? 1 : 0;
    hub += evidence == Evidence::kHub || evidence == Evidence::kEither ? 1 : 0;
  }
  return !changes || (hub > 0 && in_memory == 0);
}

namespace {

// The path of the deepest sub-model that a name is below.
std::string_view Owner(std::string_view key, const std::vector<SubModel>& submodels) {
  std::string_view owner;
  for (const SubModel& model : submodels) {
    if (model.path.size() > owner.size() && key.size() > model.path.size() && key.starts_with(model.path) &&
        key[model.path.size()] == '.')
      owner = model.path;
  }
  return owner;
}

bool IsInside(std::string_view path, std::string_view ancestor) {
  return ancestor.empty() || path == ancestor || (path.starts_with(ancestor) && path[ancestor.size()] == '.');
}

// Renamings that fired on names of two sub-models of which neither contains the other.
std::set<uint32_t> SpanningRenamings(const std::map<std::string, std::vector<const std::string*>>& shapes,
                                     const RuleNames& rules, const std::vector<SubModel>& submodels) {
  std::map<uint32_t, std::set<std::string_view>> owners;
  for (const auto& [shape, names] : shapes) {
    for (const uint32_t transform : rules.Find(*names[0]).fired) {
      if (rules.transforms()[transform].kind != TransformKind::kWeightConverter)
        owners[transform].insert(Owner(*names[0], submodels));
    }
  }
  std::set<uint32_t> spanning;
  for (const auto& [transform, paths] : owners) {
    for (const std::string_view a : paths) {
      const bool sibling = std::any_of(paths.begin(), paths.end(),
                                       [&](std::string_view b) { return !IsInside(a, b) && !IsInside(b, a); });
      if (sibling) spanning.insert(transform);
    }
  }
  return spanning;
}

}  // namespace

void CountAmbiguous(const std::vector<EngineKey>& keys, const RuleNames& rules, const std::vector<SubModel>& submodels,
                    Conversion* conversion) {
  auto load = Renamer::Create(rules.transforms(), Renamer::Direction::kLoad);
  if (!load) return;
  const auto shapes = ByShape(keys);
  const std::set<uint32_t> spanning = SpanningRenamings(shapes, rules, submodels);
  std::set<uint32_t> undecided;
  for (const auto& [shape, names] : shapes) {
    const std::string& key = *names[0];
    const RenamedKey& reversed = rules.Find(key);
    for (const uint32_t transform : reversed.fired) {
      if (!spanning.contains(transform)) continue;
      const uint32_t skip[] = {transform};
      const std::string other = rules.renamer().Probe(key, skip).name;
      if (other == reversed.name || Load(*load, other) != key) continue;
      conversion->ambiguous += names.size();
      undecided.insert(transform);
      if (conversion->ambiguous_examples.size() < kExamples) {
        conversion->ambiguous_examples.push_back(fmt::format("{} could be {} or {}", key, reversed.name, other));
      }
      break;
    }
  }
  for (const uint32_t transform : undecided)
    conversion->ambiguous_transforms.push_back(DescribeTransform(rules.transforms()[transform]));
}

}  // namespace quantport
