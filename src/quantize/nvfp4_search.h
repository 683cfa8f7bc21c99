// The search for block scales of static NVFP4 that needs no data: for every block the amax whose squared error is
// least. Its result goes to StaticNvfp4Scales. ModelOpt searches on GPUs only, so there is no other arithmetic here.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "quantize/element.h"
#include "quantport/error.h"

namespace quantport::quantize {

// ModelOpt's candidates, as torch.linspace has them, for `mse` without a sweep: defaults 0.25, 4 and 0.1. Four-over-six
// has 1 and 1.5.
std::vector<float> SearchMultipliers(double start, double stop, double step);

// The best of each block's amax times `multipliers`, the first of equals. `normalization` is 448, or 256 for
// four-over-six. Errors and their sums are F32 in the order that was found on a GPU.
Status SearchNvfp4Amax(const Matrix& matrix, size_t block, float group_amax, float normalization,
                       std::span<const float> multipliers, std::span<float> block_amax);

// The best of the 126 values that E4M3 can give a scale: fp8_scale_sweep.
Status SweepNvfp4Amax(const Matrix& matrix, size_t block, float group_amax, std::span<float> block_amax);

}  // namespace quantport::quantize
