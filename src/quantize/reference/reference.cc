#include "quantize/reference/reference.h"

#include <algorithm>

namespace quantport::quantize {

void ErrorSums::Add(const ErrorSums& other) {
  squared_error += other.squared_error;
  squares += other.squares;
  max_error = std::max(max_error, other.max_error);
  clipped += other.clipped;
  elements += other.elements;
}

const Kernels& ReferenceKernels() {
  static constexpr Kernels kernels = {
      .group_amax = reference::GroupAmax,
      .find_nonfinite = reference::FindNonfinite,
      .fp8 = reference::Fp8,
      .mxfp8 = reference::Mxfp8,
      .mxfp4 = reference::Mxfp4,
      .nvfp4 = reference::Nvfp4,
      .nvfp4_with_scales = reference::Nvfp4WithScales,
      .int8 = reference::Int8,
      .int4 = reference::Int4,
      .from_fp8 = reference::FromFp8,
      .from_mxfp8 = reference::FromMxfp8,
      .from_mxfp4 = reference::FromMxfp4,
      .from_nvfp4 = reference::FromNvfp4,
      .from_int8 = reference::FromInt8,
      .from_int4 = reference::FromInt4,
      .add_error = reference::AddError,
  };
  return kernels;
}

}  // namespace quantport::quantize
