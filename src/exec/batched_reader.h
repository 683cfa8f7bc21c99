// Reads experts that are stored quantized with two inputs in a byte and outputs side by side, as rows of inputs.
#pragma once

#include <cstdint>
#include <span>

#include "exec/stored_bytes.h"
#include "plan/quantize_plan.h"
#include "quantize/element.h"
#include "quantport/error.h"

namespace quantport {

// `rows` inputs of one expert from `first_row` on, both multiples of a block. NVFP4 of batched experts, [in / 2, out] a
// weight; and gpt-oss's MXFP4, [out, in / 32, 16]. Errors: kIo.
Status ReadBatchedNvfp4(const PlannedMatrix& matrix, uint64_t expert, uint64_t first_row, uint64_t rows,
                        const StoredBytes& stored, float scale_2, const quantize::Output& out);
Status ReadMxfp4Blocks(const PlannedMatrix& matrix, uint64_t expert, uint64_t first_row, uint64_t rows,
                       const StoredBytes& stored, const quantize::Output& out);

}  // namespace quantport
