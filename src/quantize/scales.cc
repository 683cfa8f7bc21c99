#include "quantize/scales.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "quantize/check.h"
#include "quantize/codes.h"
#include "quantize/kernels.h"

namespace quantport::quantize {
namespace {

constexpr size_t kGroupsAtOnce = 256;

float SmallestNormal(ElementType type) { return type == ElementType::kF16 ? 0x1p-14f : 0x1p-126f; }

// Of magnitudes, NaN above all.
float Larger(float a, float b) { return std::bit_cast<uint32_t>(a) > std::bit_cast<uint32_t>(b) ? a : b; }

// Raises `amax`, one a block of `columns`, by one row.
void AddRow(const Row& row, size_t columns, float* amax) {
  std::array<float, kGroupsAtOnce> groups;
  const size_t groups_in_row = CeilDiv(row.size, columns);
  for (size_t first = 0; first < groups_in_row; first += kGroupsAtOnce) {
    const size_t count = std::min(kGroupsAtOnce, groups_in_row - first);
    const size_t size = std::min(count * columns, row.size - first * columns);
    SimdKernels().group_amax(row.Slice(first * columns, size), columns, groups.data());
    for (size_t i = 0; i < count; ++i) amax[first + i] = Larger(amax[first + i], groups[i]);
  }
}

}  // namespace

float DivideByNumber(float value, float number, Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kCpu ? value / number : value * (1.0f / number);
}

float Fp8TensorScale(float amax, const Numerics& numerics) {
  const float scale = DivideByNumber(amax, kE4m3Max, numerics.arithmetic);
  return scale == 0 && !numerics.bit_exact_zeros ? 1.0f : scale;
}

float Nvfp4GlobalScale(float amax, float normalization, const Numerics& numerics) {
  const float scale = DivideByNumber(amax, kE2m1Max * normalization, numerics.arithmetic);
  return scale == 0 && !numerics.bit_exact_zeros ? 1.0f : scale;
}

void GuardedScales(std::span<const float> amax, float largest, ElementType type, Arithmetic arithmetic,
                   std::span<float> scales) {
  for (size_t i = 0; i < amax.size(); ++i) {
    const bool usable = amax[i] != 0 && !std::isnan(amax[i]);
    scales[i] = DivideByNumber(usable ? std::max(amax[i], SmallestNormal(type)) : largest, largest, arithmetic);
  }
}

Status BlockAmax(const Matrix& matrix, BlockShape block, std::span<float> amax) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectBlock(block); !status) return status;
  if (Status status = ExpectSize("amax", amax.size(), BlockCount(matrix.rows, matrix.columns, block)); !status)
    return status;
  std::fill(amax.begin(), amax.end(), 0.0f);
  if (matrix.bytes.empty()) return {};
  const size_t blocks_in_row = CeilDiv(matrix.columns, block.columns);
  if (matrix.rows <= block.rows && blocks_in_row == 1) {
    AddRow(matrix.Flat(), matrix.rows * matrix.columns, amax.data());
    return {};
  }
  for (size_t row = 0; row < matrix.rows; ++row) {
    AddRow(matrix.RowAt(row), block.columns, amax.data() + row / block.rows * blocks_in_row);
  }
  return {};
}

size_t FindNonfinite(const Matrix& matrix) { return SimdKernels().find_nonfinite(matrix.Flat()); }

}  // namespace quantport::quantize
