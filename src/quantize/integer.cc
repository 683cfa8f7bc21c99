#include "quantize/integer.h"

#include "quantize/check.h"

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
    sums->Add(kernels.int8_error(matrix.RowAt(row), codes.data() + row * matrix.columns,
                                 scales.data() + row * CeilDiv(matrix.columns, group), group));
  }
  return {};
}

Status MeasureInt4(const Matrix& matrix, std::span<const uint8_t> codes, size_t group, std::span<const float> scales,
                   ErrorSums* sums, const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectInt4(matrix.rows, matrix.columns, group, codes.size(), scales.size()); !status)
    return status;
  const size_t groups = matrix.columns / group;
  for (size_t row = 0; row < matrix.rows; row += 2) {
    const float* row_scales = scales.data() + row * groups;
    sums->Add(kernels.int4_error(matrix.RowAt(row), matrix.RowAt(row + 1), codes.data() + row / 2 * matrix.columns,
                                 row_scales, row_scales + groups, group));
  }
  return {};
}

}  // namespace quantport::quantize
