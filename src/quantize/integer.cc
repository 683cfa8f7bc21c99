#include "quantize/integer.h"

#include <algorithm>
#include <cmath>

#include "quantize/check.h"
#include "quantize/measure.h"

namespace quantport::quantize {
namespace {

Status ExpectGroups(size_t rows, size_t columns, size_t group, size_t codes, size_t rows_per_code, size_t scales) {
  if (Status status = ExpectBlock({1, group}); !status) return status;
  const auto elements = CheckedMul<uint64_t>(rows, columns);
  if (!elements) return Refuse("the shape overflows");
  if (Status status = ExpectSize("codes", codes, *elements / rows_per_code); !status) return status;
  return ExpectSize("scales", scales, BlockCount(rows, columns, {1, group}));
}

Status ExpectInt8(size_t rows, size_t columns, size_t group, size_t codes, size_t scales) {
  return ExpectGroups(rows, columns, group, codes, 1, scales);
}

Status ExpectInt4(size_t rows, size_t columns, size_t group, size_t codes, size_t scales) {
  if (Status status = ExpectMultiple("rows", rows, 2); !status) return status;
  if (Status status = ExpectGroups(rows, columns, group, codes, 2, scales); !status) return status;
  return ExpectMultiple("columns", columns, group);
}

}  // namespace

Status QuantizeInt8(const Matrix& matrix, size_t group, std::span<const float> scales, std::span<uint8_t> codes,
                    const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectInt8(matrix.rows, matrix.columns, group, codes.size(), scales.size()); !status)
    return status;
  for (size_t row = 0; row < matrix.rows; ++row) {
    kernels.int8(matrix.RowAt(row), scales.data() + row * CeilDiv(matrix.columns, group), group,
                 codes.data() + row * matrix.columns);
  }
  return {};
}

Status QuantizeInt4(const Matrix& matrix, size_t group, std::span<const float> scales, std::span<uint8_t> codes,
                    const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectInt4(matrix.rows, matrix.columns, group, codes.size(), scales.size()); !status)
    return status;
  const size_t groups = matrix.columns / group;
  for (size_t row = 0; row < matrix.rows; row += 2) {
    const float* row_scales = scales.data() + row * groups;
    kernels.int4(matrix.RowAt(row), matrix.RowAt(row + 1), row_scales, row_scales + groups, group,
                 codes.data() + row / 2 * matrix.columns);
  }
  return {};
}

Status DequantizeInt8(std::span<const uint8_t> codes, size_t rows, size_t columns, size_t group,
                      std::span<const float> scales, ScaleRounding rounding, std::span<uint8_t> output,
                      ElementType type, const Kernels& kernels) {
  if (Status status = ExpectInt8(rows, columns, group, codes.size(), scales.size()); !status) return status;
  if (Status status = ExpectMatrix({output, type, rows, columns}); !status) return status;
  const Output out = {output.data(), type};
  for (size_t row = 0; row < rows; ++row) {
    kernels.from_int8(codes.data() + row * columns, columns, scales.data() + row * CeilDiv(columns, group), group,
                      rounding, out.At(row * columns));
  }
  return {};
}

Status DequantizeInt4(std::span<const uint8_t> codes, size_t rows, size_t columns, size_t group,
                      std::span<const float> scales, ScaleRounding rounding, std::span<uint8_t> output,
                      ElementType type, const Kernels& kernels) {
  if (Status status = ExpectInt4(rows, columns, group, codes.size(), scales.size()); !status) return status;
  if (Status status = ExpectMatrix({output, type, rows, columns}); !status) return status;
  const Output out = {output.data(), type};
  const size_t groups = columns / group;
  for (size_t row = 0; row < rows; row += 2) {
    const float* row_scales = scales.data() + row * groups;
    kernels.from_int4(codes.data() + row / 2 * columns, columns, row_scales, row_scales + groups, group, rounding,
                      out.At(row * columns), out.At((row + 1) * columns));
  }
  return {};
}

Status MeasureInt8(const Matrix& matrix, std::span<const uint8_t> codes, size_t group, std::span<const float> scales,
                   ErrorSums* sums, const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectInt8(matrix.rows, matrix.columns, group, codes.size(), scales.size()); !status)
    return status;
  for (size_t row = 0; row < matrix.rows; ++row) {
    const float* row_scales = scales.data() + row * CeilDiv(matrix.columns, group);
    const auto dequantize = [&](size_t first, size_t count, Output output) {
      kernels.from_int8(codes.data() + row * matrix.columns + first, count, row_scales + first / group, group,
                        ScaleRounding::kKept, output);
    };
    MeasureRow(
        kernels, matrix.RowAt(row), group, dequantize, [&](size_t i) { return 127.0f * std::fabs(row_scales[i]); },
        sums);
  }
  return {};
}

Status MeasureInt4(const Matrix& matrix, std::span<const uint8_t> codes, size_t group, std::span<const float> scales,
                   ErrorSums* sums, const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectInt4(matrix.rows, matrix.columns, group, codes.size(), scales.size()); !status)
    return status;
  const size_t groups = matrix.columns / group;
  for (size_t row = 0; row < matrix.rows; ++row) {
    const float* pair_scales = scales.data() + row / 2 * 2 * groups;
    const float* row_scales = scales.data() + row * groups;
    const auto dequantize = [&](size_t first, size_t count, Output output) {
      std::array<float, kPieceSize> other;
      const Output unused = {reinterpret_cast<uint8_t*>(other.data()), ElementType::kF32};
      kernels.from_int4(codes.data() + row / 2 * matrix.columns + first, count, pair_scales + first / group,
                        pair_scales + groups + first / group, group, ScaleRounding::kKept,
                        row % 2 == 0 ? output : unused, row % 2 == 0 ? unused : output);
    };
    MeasureRow(
        kernels, matrix.RowAt(row), group, dequantize, [&](size_t i) { return 7.0f * std::fabs(row_scales[i]); }, sums);
  }
  return {};
}

}  // namespace quantport::quantize
