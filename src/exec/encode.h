// One stretch of rows to the codes and scales of its format.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/quantize_plan.h"
#include "quantize/element.h"
#include "quantize/kernels.h"
#include "quantize/scales.h"
#include "quantport/error.h"

namespace quantport {

struct EncodedRows {
  std::vector<uint8_t> codes;
  std::vector<uint8_t> scales;  // the bytes of those that the format has several of
};

// The one scale of a matrix whose format has one: weight_scale of FP8, weight_scale_2 of NVFP4.
float ScalarScale(const PlannedMatrix& matrix, float group_amax, const quantize::Numerics& numerics);

// `rows` begins with a multiple of RowStep rows. `group_amax`: of the matrix's group, where it has one. Adds what is
// lost to `sums`. Errors: kQuantConversionUnsupported.
Status EncodeRows(const PlannedMatrix& matrix, const quantize::Matrix& rows, float group_amax,
                  const quantize::Numerics& numerics, EncodedRows* out, quantize::ErrorSums* sums);

}  // namespace quantport
