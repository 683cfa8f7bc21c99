// The OCP microscaling formats as ModelOpt writes them: blocks of 32 along a row, each with a power of two for a scale.
#pragma once

#include <cstdint>
#include <span>

#include "format/format_id.h"
#include "quantize/kernels.h"
#include "quantport/error.h"

namespace quantport::quantize {

inline constexpr size_t kMxBlock = 32;

// `format` is kMxfp8 or kMxfp4 in all of these.
// Scales of rows x (columns / 32); codes of rows x columns bytes for MXFP8, and half as many for MXFP4, element 2k in
// the low nibble.
Status QuantizeMx(FormatId format, const Matrix& matrix, std::span<uint8_t> scales, std::span<uint8_t> codes,
                  const Kernels& kernels = SimdKernels());

Status DequantizeMx(FormatId format, std::span<const uint8_t> codes, size_t rows, size_t columns,
                    std::span<const uint8_t> scales, std::span<uint8_t> output, ElementType type,
                    const Kernels& kernels = SimdKernels());

Status MeasureMx(FormatId format, const Matrix& matrix, std::span<const uint8_t> codes, std::span<const uint8_t> scales,
                 ErrorSums* sums, const Kernels& kernels = SimdKernels());

}  // namespace quantport::quantize
