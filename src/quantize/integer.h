// INT8 with one scale a row (or group), and INT4 with one a group, two rows packed in a byte.
#pragma once

#include <cstdint>
#include <span>

#include "quantize/kernels.h"
#include "quantport/error.h"

namespace quantport::quantize {

// `group` columns share a scale: all of them for ModelOpt's INT8. scales of rows x ceil(columns / group).
Status QuantizeInt8(const Matrix& matrix, size_t group, std::span<const float> scales, std::span<uint8_t> codes,
                    const Kernels& kernels = SimdKernels());

// codes of (rows / 2) x columns: rows 2k in the low nibbles, 2k + 1 in the high ones, as W4A16_AWQ. The number of rows
// is even and columns a multiple of `group`.
Status QuantizeInt4(const Matrix& matrix, size_t group, std::span<const float> scales, std::span<uint8_t> codes,
                    const Kernels& kernels = SimdKernels());

Status DequantizeInt8(std::span<const uint8_t> codes, size_t rows, size_t columns, size_t group,
                      std::span<const float> scales, ScaleRounding rounding, std::span<uint8_t> output,
                      ElementType type, const Kernels& kernels = SimdKernels());

Status DequantizeInt4(std::span<const uint8_t> codes, size_t rows, size_t columns, size_t group,
                      std::span<const float> scales, ScaleRounding rounding, std::span<uint8_t> output,
                      ElementType type, const Kernels& kernels = SimdKernels());

Status MeasureInt8(const Matrix& matrix, std::span<const uint8_t> codes, size_t group, std::span<const float> scales,
                   ErrorSums* sums, const Kernels& kernels = SimdKernels());

Status MeasureInt4(const Matrix& matrix, std::span<const uint8_t> codes, size_t group, std::span<const float> scales,
                   ErrorSums* sums, const Kernels& kernels = SimdKernels());

}  // namespace quantport::quantize
