// FP8 E4M3 with one scale for the tensor, for each row, or for each block of m x n; and the hub's fine-grained FP8 as
// input.
#pragma once

#include <cstdint>
#include <span>

#include "quantize/kernels.h"
#include "quantize/scales.h"
#include "quantport/error.h"

namespace quantport::quantize {

// With a 0-d scale, as ModelOpt's FP8 has it: the quotient is rounded to the weight's type before it becomes a code. A
// scale of zero makes all codes NaN.
Status QuantizeFp8Tensor(const Matrix& matrix, float scale, Arithmetic arithmetic, std::span<uint8_t> codes,
                         const Kernels& kernels = SimdKernels());

// With one scale a block, whose quotient stays in F32: {1, columns} for FP8_PER_CHANNEL_PER_TOKEN, {128, 128} for
// FP8_PB_WO. The rows at hand begin with a row of blocks.
Status QuantizeFp8(const Matrix& matrix, BlockShape block, std::span<const float> scales, std::span<uint8_t> codes,
                   const Kernels& kernels = SimdKernels());

// codes * scales. DeepSeek's weight_scale_inv is multiplied as it is (kKept, blocks of {128, 128}); ModelOpt rounds a
// scale to the output's type first.
Status DequantizeFp8(std::span<const uint8_t> codes, size_t rows, size_t columns, BlockShape block,
                     std::span<const float> scales, ScaleRounding rounding, std::span<uint8_t> output, ElementType type,
                     const Kernels& kernels = SimdKernels());

// `matrix` against its codes, dequantized in F32.
Status MeasureFp8(const Matrix& matrix, std::span<const uint8_t> codes, BlockShape block, std::span<const float> scales,
                  ErrorSums* sums, const Kernels& kernels = SimdKernels());

}  // namespace quantport::quantize
