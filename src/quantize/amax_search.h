// The search for an amax that needs no data, of formats other than NVFP4: of multiples of the largest magnitude the one
// with which ModelOpt's fake quantization errs least (algorithm `mse`). ModelOpt sums the squares in F32, in an order
// that depends on the CPU; here in F64, which decides alike unless two sums agree to seven digits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "format/format_id.h"
#include "quantize/element.h"
#include "quantize/scales.h"
#include "quantport/error.h"

namespace quantport::quantize {

// `format` is kFp8PerTensor, which stands for FP8 of any granularity, kInt8 or kInt4 in all of these.
// Adds to each of `losses` the squared error of all elements under the amax of the same number.
void AddLosses(const Row& row, FormatId format, std::span<const float> amax, std::span<double> losses);

// The first of the least; NaN is less than all, as torch.argmin has it. Requires one loss at least.
size_t LeastLoss(std::span<const double> losses);

// Replaces largest magnitudes, as BlockAmax gives them, by the best multiples. `amax_type` is that in which ModelOpt
// keeps them: candidates and result are rounded to it. `multipliers` as SearchMultipliers. Errors: as BlockAmax.
Status SearchAmax(const Matrix& matrix, BlockShape block, FormatId format, std::span<const float> multipliers,
                  ElementType amax_type, std::span<float> amax);

}  // namespace quantport::quantize
