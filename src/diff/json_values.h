// Differences between two JSON values, by path.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "quantport/quantport.h"

namespace quantport {

// One entry for every value that differs or that only one side has. The order of keys is no difference. Lists go entry
// by entry, but lists of strings of unequal length (exclude lists) by what only one has: an entry inserted at the front
// would else make all that follow differ.
std::vector<FileDiff> CompareJsonValues(const Json& a, const Json& b, const std::string& file);

}  // namespace quantport
