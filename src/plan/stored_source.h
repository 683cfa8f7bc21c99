// How a weight that is stored quantized is read as a matrix of numbers.
#pragma once

#include <array>

#include "plan/quantize_plan.h"

namespace quantport {

// Errors: kQuantConversionUnsupported for layouts that are not dequantized here, naming the layout.
Result<MatrixSource> StoredSource(const WeightUnit& unit, const TensorTable& table,
                                  const std::array<uint64_t, 2>& fp8_tile);

}  // namespace quantport
