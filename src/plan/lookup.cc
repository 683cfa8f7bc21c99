#include "plan/lookup.h"

#include "base/text.h"

namespace quantport {

std::string NameLookup::NewKey(const std::string& module) const {
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

}  // namespace quantport
