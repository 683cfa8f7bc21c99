// How a weight that is stored quantized is read as a matrix of numbers.
#pragma once

#include <array>

#include "plan/quantize_plan.h"

namespace quantport {

// Whether numbers of this type can be scales: every float of whole bytes that a producer writes. The others are refused
// instead of being read as one of these.
bool IsScaleType(DType dtype);

// Errors: kQuantConversionUnsupported for layouts that are not dequantized here, naming the layout.
Result<MatrixSource> StoredSource(const WeightUnit& unit, const TensorTable& table,
                                  const std::array<uint64_t, 2>& fp8_tile);

}  // namespace quantport
