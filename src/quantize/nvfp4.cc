#include "quantize/nvfp4.h"

#include <algorithm>
#include <cmath>

#include "quantize/check.h"
#include "quantize/codes.h"

namespace quantport::quantize {
namespace {

constexpr uint8_t kTwoLargest = 0x77;  // what NaN becomes, twice

Status ExpectBlocks(size_t rows, size_t columns, size_t block, size_t codes, size_t scales) {
  if (block != 16 && block != 32) return Refuse("NVFP4 has blocks of 16 or 32, not of " + std::to_string(block));
  if (Status status = ExpectMultiple("columns", columns, block); !status) return status;
  const auto elements = CheckedMul<uint64_t>(rows, columns);
  if (!elements) return Refuse("the shape overflows");
  if (Status status = ExpectSize("codes", codes, *elements / 2); !status) return status;
  return ExpectSize("scales", scales, *elements / block);
}

}  // namespace

Status QuantizeNvfp4(const Matrix& matrix, float global_scale, size_t block, const Numerics& numerics,
                     std::span<uint8_t> scales, std::span<uint8_t> codes, const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectBlocks(matrix.rows, matrix.columns, block, codes.size(), scales.size()); !status)
    return status;
  if (global_scale == 0) {
    const uint8_t nan = numerics.arithmetic == Arithmetic::kCpu ? 0x80 | kE4m3Nan : kE4m3Nan;
    std::fill(scales.begin(), scales.end(), nan);
    std::fill(codes.begin(), codes.end(), kTwoLargest);
    return {};
  }
  // Blocks divide a row, so all rows are one.
  kernels.nvfp4(matrix.Flat(), global_scale, block, scales.data(), codes.data());
  return {};
}

Status QuantizeNvfp4WithScales(const Matrix& matrix, float global_scale, size_t block, std::span<const uint8_t> scales,
                               std::span<uint8_t> codes, const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectBlocks(matrix.rows, matrix.columns, block, codes.size(), scales.size()); !status)
    return status;
  kernels.nvfp4_with_scales(matrix.Flat(), global_scale, block, scales.data(), codes.data());
  return {};
}

void StaticNvfp4Scales(std::span<const float> block_amax, float group_amax, float normalization, Arithmetic arithmetic,
                       std::span<uint8_t> scales) {
  const float largest = DivideByNumber(group_amax, kE2m1Max, arithmetic);
  for (size_t i = 0; i < block_amax.size(); ++i) {
    float scale = DivideByNumber(block_amax[i], kE2m1Max, arithmetic);
    if (scale == 0) scale = 1.0f;
    scale = scale * normalization / largest;
    scales[i] = std::isnan(scale) ? kE4m3Nan : EncodeE4m3(std::fmin(std::fmax(scale, 0x1p-9f), kE4m3Max));
  }
}

Status DequantizeNvfp4(std::span<const uint8_t> codes, size_t rows, size_t columns, size_t block,
                       std::span<const uint8_t> scales, float global_scale, std::span<uint8_t> output, ElementType type,
                       const Kernels& kernels) {
  if (Status status = ExpectBlocks(rows, columns, block, codes.size(), scales.size()); !status) return status;
  if (Status status = ExpectMatrix({output, type, rows, columns}); !status) return status;
  kernels.from_nvfp4(codes.data(), rows * columns, global_scale, block, scales.data(), {output.data(), type});
  return {};
}

Status MeasureNvfp4(const Matrix& matrix, std::span<const uint8_t> codes, size_t block, std::span<const uint8_t> scales,
                    float global_scale, ErrorSums* sums, const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectBlocks(matrix.rows, matrix.columns, block, codes.size(), scales.size()); !status)
    return status;
  sums->Add(kernels.nvfp4_error(matrix.Flat(), codes.data(), global_scale, block, scales.data()));
  return {};
}

}  // namespace quantport::quantize
