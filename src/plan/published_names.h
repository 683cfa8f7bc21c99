// A reference made of what a hub is known to call its tensors, for the layers and experts that an export has.
#pragma once

#include <vector>

#include "mapping/published.h"
#include "plan/conversion.h"
#include "plan/groups.h"

namespace quantport {

// The hub names that load to `keys`, the names that the units have in memory, or are those themselves; names that
// `keys` does not ask for are left out. Errors: kInvalidMapping.
Result<ReferenceView> ExpandPublishedNames(const PublishedNames& published, const ConversionInput& input,
                                           const std::vector<EngineKey>& keys);

}  // namespace quantport
