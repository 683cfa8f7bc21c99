// Puts the experts of a stacked parameter together again from linears that are stored one by one.
#pragma once

#include <vector>

#include "layout/logical_weight.h"
#include "layout/shared_scales.h"
#include "plan/operations.h"
#include "quantport/error.h"

namespace quantport {

// Linears [out, in] of all experts, each whole or in parts along out, as one weight [E, parts * out, in] with its
// scales as [E, ...]. Every part holds the experts 0 to E - 1, each once, as CheckNumbering sees to. Errors:
// kQuantConversionUnsupported where they are not stored alike.
Result<LogicalWeight> AssembleExperts(const std::vector<Entry>& pieces, SharedScales* shared);

}  // namespace quantport
