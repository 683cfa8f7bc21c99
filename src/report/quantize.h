// What quantizing cost, in the terms that people compare.
#pragma once

#include <vector>

#include "quantize/kernels.h"
#include "quantport/quantize.h"

namespace quantport {

// Fills in the errors of QuantizeReport::weights, in whose order they are, with totals by format, and puts the worst
// first.
void AddErrors(const std::vector<quantize::ErrorSums>& errors, const std::vector<quantize::CastBlocks>& casts,
               QuantizeReport* report);

}  // namespace quantport
