// Holds a conversion against the reference it was guided by.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "plan/conversion.h"

namespace quantport {

// Experts that the hub keeps in one tensor for all, and that quantized exports store one by one: 2-D linears
// "<container>.<i>.<linear>.weight" below the container of the hub's tensor are their convention in inference engines.
class StackedExperts {
 public:
  explicit StackedExperts(const ReferenceView& reference);

  // True for the key of an expanded expert's linear whose container the reference stores stacked.
  bool Holds(std::string_view key) const { return !ContainerOf(key).empty(); }
  // The container that `key` is an expanded expert of, "" where it is none.
  std::string ContainerOf(std::string_view key) const;
  // The container of one of the reference's stacked tensors, "" for any other key.
  std::string ContainerOfStacked(const std::string& reference_key) const;

 private:
  const ReferenceView& reference_;
  std::set<std::string> containers_;
};

// Fills `only_in_reference`. Errors (kReferenceMismatch): names the reference does not have, unless they are tied to
// another tensor and so may be stored or not, or expand its stacked experts; logical shapes that differ.
Errors CheckAgainstReference(const ReferenceView& reference, const std::vector<std::string>& tied_weights,
                             Conversion* conversion);

}  // namespace quantport
