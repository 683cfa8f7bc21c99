// The files of a checkpoint that hold no tensors, in a plan.
#pragma once

#include "checkpoint/checkpoint.h"
#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

// Has the plan copy every one of the checkpoint's sidecars that it does not write itself. Errors: kIo, kLinkedFile for
// each that is a link out of the checkpoint's folder.
Status PlanCopies(const Checkpoint& checkpoint, Plan* plan);

}  // namespace quantport
