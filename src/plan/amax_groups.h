// Which matrices share the largest magnitude that a per-tensor scale is computed from.
#pragma once

#include <string>
#include <vector>

#include "plan/quantize_plan.h"

namespace quantport {

// Numbers the groups of `matrices` that have a per-tensor scale, and returns how many there are. One in memory is one:
// what the hub keeps in two tensors and loading joins. Formats with NVFP4's two scales also share it among linears that
// engines fuse and that see the same input, as ModelOpt does before it exports (docs/quantization.md).
// `matrix_of`: each one's index in MemoryModel::matrices, or SIZE_MAX.
uint32_t GroupByAmax(const MemoryModel& memory, const std::vector<size_t>& matrix_of,
                     std::vector<PlannedMatrix>* matrices);

// "<parent>|<family>" for linears that see the same input and that engines fuse; "" for one that stands for itself.
std::string SharedInputOf(const std::string& module);

}  // namespace quantport
