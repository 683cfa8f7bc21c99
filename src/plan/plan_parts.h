// Parts of a plan, each for a process or machine of its own: every output file is written by exactly one of them.
#pragma once

#include <cstddef>

#include "plan/quantize_plan.h"
#include "quantport/error.h"

namespace quantport {

// Part `part` of `parts`, counted from 0; all of them together write what the plan does, byte for byte, without talking
// to each other. Files with tensors are dealt out so that parts have about as many bytes; all others, the index
// included, are the first part's. What a part has besides its files is what they need: their sources, and the matrices
// of groups that share a scale, which are read and not written where their files are another part's. So a source may be
// read by several parts. A part may have no file. Requires part < parts.
QuantizePlan PartOf(const QuantizePlan& plan, size_t part, size_t parts);

}  // namespace quantport
