// A conversion's arrays as views of the tensors of a state dict.
#pragma once

#include "plan/conversion.h"
#include "quantport/state_dict.h"
#include "safetensors/table.h"

namespace quantport {

// Fills names, whole, copied, series, joined, literals, checks, merges and steps. Results are sorted by the first
// tensor that they are made of.
void AddViews(const TensorTable& table, Conversion* conversion, StateDictPlan* plan);

}  // namespace quantport
