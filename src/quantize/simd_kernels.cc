// The SIMD kernels, compiled for each target that the compiler knows and chosen when they run. Targets without vectors
// get the reference.

// Vectors of a size that is known when they run can't stand in arrays and structs, as the kernels keep them: Arm gets
// NEON.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#include <cmath>

#include "quantize/kernels.h"
#include "quantize/reference/reference.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/simd_kernels.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
#include "quantize/simd/amax-inl.h"
#include "quantize/simd/dequantize-inl.h"
#include "quantize/simd/error-inl.h"
#include "quantize/simd/fp8-inl.h"
#include "quantize/simd/integer-inl.h"
#include "quantize/simd/mx-inl.h"
#include "quantize/simd/nvfp4-inl.h"
#endif

HWY_BEFORE_NAMESPACE();
namespace quantport::quantize {
namespace HWY_NAMESPACE {

const Kernels& TargetKernels() {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  return ReferenceKernels();
#else
  static constexpr Kernels kernels = {
      .group_amax = GroupAmax,
      .find_nonfinite = FindNonfinite,
      .fp8 = Fp8,
      .mxfp8 = Mxfp8,
      .mxfp4 = Mxfp4,
      .nvfp4 = Nvfp4,
      .nvfp4_with_scales = Nvfp4WithScales,
      .int8 = Int8,
      .int4 = Int4,
      .from_fp8 = FromFp8,
      .from_mxfp8 = FromMxfp8,
      .from_mxfp4 = FromMxfp4,
      .from_nvfp4 = FromNvfp4,
      .from_int8 = FromInt8,
      .from_int4 = FromInt4,
      .fp8_error = Fp8Error,
      .mxfp8_error = Mxfp8Error,
      .mxfp4_error = Mxfp4Error,
      .nvfp4_error = Nvfp4Error,
      .int8_error = Int8Error,
      .int4_error = Int4Error,
  };
  return kernels;
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace quantport::quantize
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quantport::quantize {

HWY_EXPORT(TargetKernels);

const Kernels& SimdKernels() { return HWY_DYNAMIC_DISPATCH(TargetKernels)(); }

}  // namespace quantport::quantize
#endif
