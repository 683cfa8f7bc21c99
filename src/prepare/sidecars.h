// The files of a checkpoint that hold no tensors, in a plan.
#pragma once

#include "checkpoint/checkpoint.h"
#include "plan/plan.h"

namespace quantport {

// Has the plan copy every one of the checkpoint's sidecars that it does not write itself.
void PlanCopies(const Checkpoint& checkpoint, Plan* plan);

}  // namespace quantport
