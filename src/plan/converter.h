// Carries groups out, one after the other, and collects what comes of them.
#pragma once

#include "plan/conversion.h"
#include "plan/group_builder.h"
#include "plan/lookup.h"

namespace quantport {

// Errors: all of the groups', each naming the first tensor of its group and the shard it is in; kNameCollision.
Result<Conversion> RunGroups(const ConversionInput& input, const Grouping& grouping, const NameLookup& lookup);

}  // namespace quantport
