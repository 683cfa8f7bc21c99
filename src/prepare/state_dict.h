// State dicts: what PlanStateDict and the functions around it do.
#pragma once

#include <string>
#include <vector>

#include "io/storage.h"
#include "quantport/state_dict.h"

namespace quantport {

// The public PlanStateDict, with a reference in any storage, which must live as long as the plan.
Result<StateDictPlan> PlanStateDict(std::vector<StateTensor> tensors, const StateDictOptions& options,
                                    const Storage& storage);

// The public MergeStateScalars.
Result<std::vector<StateStepResult>> MergeScalars(const StateDictPlan& plan,
                                                  const std::vector<std::vector<std::string>>& scalars);

}  // namespace quantport
