// The loops over elements, as functions of one row, in two versions that give the same bits: plain C++, which is
// written to be read and compared with ModelOpt, and SIMD. Sizes are the callers' matter (fp8.h, nvfp4.h, mx.h,
// integer.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "quantize/element.h"
#include "quantize/error_sums.h"

namespace quantport::quantize {

// How a scale enters a product that ends in BF16.
enum class ScaleRounding : uint8_t {
  kKept,      // as it is: fine-grained FP8 of hub checkpoints
  kToOutput,  // rounded to the output's type first: ModelOpt's tensor classes
};

struct Kernels {
  // Largest magnitude of each `group` consecutive elements, of the last ones where less are left. NaN where a NaN is
  // among them.
  void (*group_amax)(Row row, size_t group, float* amax);
  // Index of the first NaN or infinity; the row's size where there is none.
  size_t (*find_nonfinite)(Row row);

  // e4m3(x / scale), `scales[i / group]` for element i. With `round_quotient` the quotient passes through the row's
  // type, as in torch where a 0-d scale does not promote. NaN has the sign of x.
  void (*fp8)(Row row, const float* scales, size_t group, bool round_quotient, uint8_t* codes);
  // Blocks of 32; the row's size is a multiple.
  void (*mxfp8)(Row row, uint8_t* scales, uint8_t* codes);
  void (*mxfp4)(Row row, uint8_t* scales, uint8_t* codes);
  // `block` is 16 or 32 and divides the row's size. Block scales from each block's largest magnitude.
  void (*nvfp4)(Row row, float global_scale, size_t block, uint8_t* scales, uint8_t* codes);
  // With block scales that are given.
  void (*nvfp4_with_scales)(Row row, float global_scale, size_t block, const uint8_t* scales, uint8_t* codes);
  // round(x / scale) within [-128, 127].
  void (*int8)(Row row, const float* scales, size_t group, uint8_t* codes);
  // round(x / scale) within [-8, 7]; `even` gives the low nibbles, `odd` the high ones. Both have one size and type.
  void (*int4)(Row even, Row odd, const float* even_scales, const float* odd_scales, size_t group, uint8_t* codes);

  // Back to `size` elements. For FP8, INT8 and INT4 the product of code and scale is rounded once.
  void (*from_fp8)(const uint8_t* codes, size_t size, const float* scales, size_t group, ScaleRounding, Output);
  void (*from_mxfp8)(const uint8_t* codes, size_t size, const uint8_t* scales, Output);
  void (*from_mxfp4)(const uint8_t* codes, size_t size, const uint8_t* scales, Output);
  void (*from_nvfp4)(const uint8_t* codes, size_t size, float global_scale, size_t block, const uint8_t* scales,
                     Output);
  void (*from_int8)(const uint8_t* codes, size_t size, const float* scales, size_t group, ScaleRounding, Output);
  void (*from_int4)(const uint8_t* codes, size_t size, const float* even_scales, const float* odd_scales, size_t group,
                    ScaleRounding, Output even, Output odd);

  // A row against what its codes give in F32, summed as ErrorParts says.
  ErrorSums (*fp8_error)(Row row, const uint8_t* codes, const float* scales, size_t group);
  ErrorSums (*mxfp8_error)(Row row, const uint8_t* codes, const uint8_t* scales);
  ErrorSums (*mxfp4_error)(Row row, const uint8_t* codes, const uint8_t* scales);
  ErrorSums (*nvfp4_error)(Row row, const uint8_t* codes, float global_scale, size_t block, const uint8_t* scales);
  ErrorSums (*int8_error)(Row row, const uint8_t* codes, const float* scales, size_t group);
  ErrorSums (*int4_error)(Row even, Row odd, const uint8_t* codes, const float* even_scales, const float* odd_scales,
                          size_t group);
};

// Plain C++.
const Kernels& ReferenceKernels();

// SIMD, for the best target of this processor.
const Kernels& SimdKernels();

}  // namespace quantport::quantize
