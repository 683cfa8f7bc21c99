// NVFP4: E2M1 codes, an E4M3 scale for each block of 16 (or 32) along a row, and one F32 scale for the tensor.
#pragma once

#include <cstdint>
#include <span>

#include "quantize/kernels.h"
#include "quantize/scales.h"
#include "quantport/error.h"

namespace quantport::quantize {

// Two codes a byte, element 2k in the low nibble; scales of rows x (columns / block). ModelOpt's dynamic weight
// quantizer: block scales are amax / (6 * global_scale), 1 where that is zero. A global scale of zero gives NaN scales
// and codes 7.
Status QuantizeNvfp4(const Matrix& matrix, float global_scale, size_t block, const Numerics& numerics,
                     std::span<uint8_t> scales, std::span<uint8_t> codes, const Kernels& kernels = SimdKernels());

// With block scales that are known already, from StaticNvfp4Scales.
Status QuantizeNvfp4WithScales(const Matrix& matrix, float global_scale, size_t block, std::span<const uint8_t> scales,
                               std::span<uint8_t> codes, const Kernels& kernels = SimdKernels());

// Block scales of ModelOpt's static quantizer from amax of each block (searched or not) and of the group;
// `normalization` is 448, or 256 for four-over-six. The order of its roundings is not the dynamic one's.
void StaticNvfp4Scales(std::span<const float> block_amax, float group_amax, float normalization, Arithmetic arithmetic,
                       std::span<uint8_t> scales);

Status DequantizeNvfp4(std::span<const uint8_t> codes, size_t rows, size_t columns, size_t block,
                       std::span<const uint8_t> scales, float global_scale, std::span<uint8_t> output, ElementType type,
                       const Kernels& kernels = SimdKernels());

Status MeasureNvfp4(const Matrix& matrix, std::span<const uint8_t> codes, size_t block, std::span<const uint8_t> scales,
                    float global_scale, ErrorSums* sums, const Kernels& kernels = SimdKernels());

}  // namespace quantport::quantize
