// One stretch of rows to the codes and scales of its format.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "plan/quantize_plan.h"
#include "quantize/amax_search.h"
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

// The search of an amax that a format asks for, other than of NVFP4's blocks: how ModelOpt quantizes while it searches,
// and by what the largest magnitude is multiplied. Nothing where there is no search.
struct AmaxSearch {
  FormatId format;
  std::vector<float> multipliers;
};
std::optional<AmaxSearch> AmaxSearchOf(const Encoding& format);

// `rows` begins with a multiple of RowStep rows. `group_amax`: of the matrix's group, where it has one. Adds what is
// lost to `sums`. Errors: kQuantConversionUnsupported.
Status EncodeRows(const PlannedMatrix& matrix, const quantize::Matrix& rows, float group_amax,
                  const quantize::Numerics& numerics, EncodedRows* out, quantize::ErrorSums* sums);

}  // namespace quantport
