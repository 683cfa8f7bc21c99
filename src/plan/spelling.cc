#include "plan/spelling.h"

#include <algorithm>
#include <utility>

#include "format/leaves.h"

namespace quantport {

const LeafSpelling* HubSpelling(const StoredPart& part, const ReferenceView* reference) {
  if (reference != nullptr) {
    if (const auto found = reference->leaves.find(part.leaf); found != reference->leaves.end()) return found->second;
  }
  return part.spelling != nullptr && part.spelling->in_memory ? nullptr : part.spelling;
}

bool IsSpelledOtherwise(const std::vector<WeightUnit>& units, const ReferenceView* reference) {
  return std::any_of(units.begin(), units.end(), [&](const WeightUnit& unit) {
    if (unit.IsBelowProjection()) return true;
    return unit.role == UnitRole::kValue && unit.style == NameStyle::kModule &&
           std::any_of(unit.weight.parts.begin(), unit.weight.parts.end(),
                       [&](const StoredPart& part) { return HubSpelling(part, reference) != part.spelling; });
  });
}

bool Respell(const ConversionInput& input, NameStyle from, NameStyle to, StoredPart* part) {
  // What transformers' own FP8 experts call it; other scales follow ModelOpt.
  if (input.loading && from == NameStyle::kModule && to == NameStyle::kParameter && part->leaf == leaf::kWeightScaleInv)
    part->suffix = "_scale_inv";
  const bool below_module = to == NameStyle::kModule && !input.loading;
  const LeafSpelling* spelling = below_module ? HubSpelling(*part, input.reference) : nullptr;
  return std::exchange(part->spelling, spelling) != spelling;
}

}  // namespace quantport
