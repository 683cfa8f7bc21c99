// Reads rows of weights that other tools store as integers: GPTQ, AutoAWQ, compressed-tensors' pack-quantized and
// int-quantized. A number is (code - zero point) * scale.
#pragma once

#include <cstdint>
#include <vector>

#include "exec/stored_bytes.h"
#include "plan/quantize_plan.h"
#include "quantport/error.h"

namespace quantport {

bool IsIntegerLayout(FormatId format);

// rows * columns numbers in F32, in which they are exact where scales are BF16 or F16. Errors: kIo;
// kQuantConversionUnsupported for an index of a group that the scales have not.
Result<std::vector<float>> ReadIntegers(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows,
                                        const StoredBytes& stored);

}  // namespace quantport
