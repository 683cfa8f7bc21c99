// Holds a conversion against the reference it was guided by.
#pragma once

#include <string>
#include <vector>

#include "plan/conversion.h"

namespace quantport {

// Fills `only_in_reference`. Errors (kReferenceMismatch): names the reference does not have, unless they are tied to
// another tensor and so may be stored or not; logical shapes that differ.
Errors CheckAgainstReference(const ReferenceView& reference, const std::vector<std::string>& tied_weights, Conversion* conversion);

}  // namespace quantport
