// Where every byte of a plan comes from, as the public interface tells it.
#pragma once

#include <vector>

#include "plan/plan.h"
#include "quantport/quantport.h"

namespace quantport {

// In the order of files and of the data in them.
std::vector<PlannedTensorReport> PlannedTensors(const Plan& plan);

}  // namespace quantport
