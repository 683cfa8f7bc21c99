#include "plan/reference_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace quantport {

Errors CheckAgainstReference(const ReferenceView& reference, const std::vector<std::string>& tied_weights, Conversion* conversion) {
  Errors errors;
  std::set<std::string_view> produced;
  for (const ConvertedWeight& weight : conversion->weights) {
    produced.insert(weight.key);
    if (!std::binary_search(reference.keys.begin(), reference.keys.end(), weight.key)) {
      const bool tied = std::find(tied_weights.begin(), tied_weights.end(), weight.source_key) != tied_weights.end();
      if (tied || weight.role == UnitRole::kBias) continue;
      errors.push_back({ErrorKind::kReferenceMismatch, "the reference has no tensor of this name", {}, weight.key, "is it the checkpoint this export was made from?"});
      continue;
    }
    const auto shape = reference.logical_shapes.find(weight.key);
    if (shape == reference.logical_shapes.end() || weight.layout == Layout::kOther || shape->second == weight.shape) continue;
    errors.push_back({ErrorKind::kReferenceMismatch, fmt::format("the logical shape is [{}], the reference's [{}]", fmt::join(weight.shape, ", "), fmt::join(shape->second, ", ")), {}, weight.key, "is it the checkpoint this export was made from?"});
  }
  for (const std::string& key : reference.keys) {
    if (!produced.contains(key)) conversion->only_in_reference.push_back(key);
  }
  return errors;
}

}  // namespace quantport
