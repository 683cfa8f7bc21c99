// Weights that are stored as MXFP4 and become NVFP4.
#pragma once

#include <vector>

#include "plan/quantize_plan.h"
#include "quantport/warning.h"

namespace quantport {

// Says of those whose powers of two do not become scales, though they could, that they are quantized anew, and why.
std::vector<Warning> WarnOfRequantizing(const QuantizePlan& plan);

}  // namespace quantport
