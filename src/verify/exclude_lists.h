// Exclude lists as a whole: which of their entries speak of a module at all.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "dialect/claims.h"
#include "dialect/module_names.h"
#include "quantport/error.h"

namespace quantport {

// Those of `entries` that match no module in whatever way an engine may read them. Errors: as MatchClaims.
Result<std::vector<std::string>> WithoutModule(std::vector<std::string> entries, std::span<const NamedModule> modules,
                                               MatchBudget* budget);

// Those of the exclude list; `matched` is what MatchClaims gave for `claims` and these modules. Errors: as MatchClaims.
Result<std::vector<std::string>> DeadEntries(const ConfigClaims& claims, const MatchedClaims& matched,
                                             std::span<const NamedModule> modules, MatchBudget* budget);

// Whether dead entries tell that a list is in another namespace than the tensors: all of its entries are dead, and one
// at least would name a module. The output head of a model that ties it to its embedding is a module without tensors,
// and what may stand anywhere in a name ("*router*") is written for models that have it and for those that don't.
bool IsInOtherNamespace(const ConfigClaims& claims, const std::vector<std::string>& dead);

}  // namespace quantport
