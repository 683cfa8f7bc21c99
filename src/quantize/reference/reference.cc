#include "quantize/reference/reference.h"

namespace quantport::quantize {

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
      .fp8_error = reference::Fp8Error,
      .mxfp8_error = reference::Mxfp8Error,
      .mxfp4_error = reference::Mxfp4Error,
      .nvfp4_error = reference::Nvfp4Error,
      .int8_error = reference::Int8Error,
      .int4_error = reference::Int4Error,
  };
  return kernels;
}

}  // namespace quantport::quantize
