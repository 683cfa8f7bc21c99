// Whether the parts of a plan that comes from elsewhere fit each other.
#pragma once

#include <string_view>

#include "plan/quantize_plan.h"
#include "quantport/error.h"

namespace quantport {

// Every index leads to something, every output file has a name of its own inside the folder, tensors follow each other
// and are made of as many bytes as they have, everything that is copied of a stored tensor lies within it, and what is
// computed has a place in its file. MakePlan's plans do; of others, the first misfit is the error: kIo
// naming `file` and the tensor.
Status CheckPlan(const QuantizePlan& plan, std::string_view file);

}  // namespace quantport
