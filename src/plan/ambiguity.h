// What rules alone can't know: whether an export has hub names already, and which names have two origins.
#pragma once

#include <vector>

#include "plan/conversion.h"
#include "plan/groups.h"

namespace quantport {

// True where reverting would be wrong or for nothing: every name is one of the reference's, or no rule changes any
// name, or loading these names would rename them while reversing them does not (they are hub names).
bool HasHubNames(const std::vector<WeightUnit>& units, const std::vector<EngineKey>& keys, const RuleNames& rules,
                 const ReferenceView* reference);

// Fills `ambiguous` and its examples: in-memory names to which another hub name would load as well, found by leaving
// out one of the renamings that gave a name and loading the result.
//
// By that alone nearly every renamed name is ambiguous, since transformers also loads checkpoints in the new naming;
// a renaming that was not used at all is the whole checkpoint's question, not a name's. Counted are the names that one
// renaming gives in several sibling sub-models: it was written for one of them and may be wrong in the others
// (Kimi-K2.5's `blocks -> layers`, meant for the vision tower, also hits the text model).
void CountAmbiguous(const std::vector<EngineKey>& keys, const RuleNames& rules, const std::vector<SubModel>& submodels,
                    Conversion* conversion);

}  // namespace quantport
