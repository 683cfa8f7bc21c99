#include "quantize/fp8.h"

#include <algorithm>
#include <cmath>

#include "quantize/check.h"
#include "quantize/codes.h"

namespace quantport::quantize {
namespace {

Status ExpectBlocks(size_t rows, size_t columns, BlockShape block, size_t codes, size_t scales) {
  if (Status status = ExpectBlock(block); !status) return status;
  const auto elements = CheckedMul<uint64_t>(rows, columns);
  if (!elements) return Refuse("the shape overflows");
  if (Status status = ExpectSize("codes", codes, *elements); !status) return status;
  return ExpectSize("scales", scales, BlockCount(rows, columns, block));
}

// One block over everything is one row, which spares the work at the ends of rows.
bool IsOneBlock(size_t rows, size_t columns, BlockShape block) {
  return block.rows >= rows && block.columns >= columns;
}

// Infinities and 0 / 0, of which the latter has the sign that the processor gives it.
void DivideByZero(const Row& row, Arithmetic arithmetic, std::span<uint8_t> codes) {
  const uint8_t zero_by_zero = arithmetic == Arithmetic::kCpu ? 0x80 | kE4m3Nan : kE4m3Nan;
  for (size_t i = 0; i < row.size; ++i) {
    const float x = LoadElement(row, i);
    codes[i] = x == 0 ? zero_by_zero : EncodeE4m3(std::copysign(HUGE_VALF, x));
  }
}

}  // namespace

Status QuantizeFp8Tensor(const Matrix& matrix, float scale, Arithmetic arithmetic, std::span<uint8_t> codes,
                         const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectSize("codes", codes.size(), matrix.rows * matrix.columns); !status) return status;
  // A scale below half of F16's smallest number becomes zero.
  const float divisor = arithmetic == Arithmetic::kCuda ? RoundTo(matrix.type, scale) : scale;
  if (divisor == 0) {
    DivideByZero(matrix.Flat(), arithmetic, codes);
    return {};
  }
  kernels.fp8(matrix.Flat(), &divisor, codes.size(), /*round_quotient=*/true, codes.data());
  return {};
}

Status QuantizeFp8(const Matrix& matrix, BlockShape block, std::span<const float> scales, std::span<uint8_t> codes,
                   const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectBlocks(matrix.rows, matrix.columns, block, codes.size(), scales.size()); !status)
    return status;
  if (IsOneBlock(matrix.rows, matrix.columns, block)) {
    kernels.fp8(matrix.Flat(), scales.data(), codes.size(), /*round_quotient=*/false, codes.data());
    return {};
  }
  const size_t blocks_in_row = CeilDiv(matrix.columns, block.columns);
  for (size_t row = 0; row < matrix.rows; ++row) {
    kernels.fp8(matrix.RowAt(row), scales.data() + row / block.rows * blocks_in_row, block.columns,
                /*round_quotient=*/false, codes.data() + row * matrix.columns);
  }
  return {};
}

Status DequantizeFp8(std::span<const uint8_t> codes, size_t rows, size_t columns, BlockShape block,
                     std::span<const float> scales, ScaleRounding rounding, std::span<uint8_t> output, ElementType type,
                     const Kernels& kernels) {
  if (Status status = ExpectBlocks(rows, columns, block, codes.size(), scales.size()); !status) return status;
  if (Status status = ExpectMatrix({output, type, rows, columns}); !status) return status;
  const Output out = {output.data(), type};
  const size_t blocks_in_row = CeilDiv(columns, block.columns);
  for (size_t row = 0; row < rows; ++row) {
    kernels.from_fp8(codes.data() + row * columns, columns, scales.data() + row / block.rows * blocks_in_row,
                     block.columns, rounding, out.At(row * columns));
  }
  return {};
}

Status MeasureFp8(const Matrix& matrix, std::span<const uint8_t> codes, BlockShape block, std::span<const float> scales,
                  ErrorSums* sums, const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectBlocks(matrix.rows, matrix.columns, block, codes.size(), scales.size()); !status)
    return status;
  if (IsOneBlock(matrix.rows, matrix.columns, block)) {
    sums->Add(kernels.fp8_error(matrix.Flat(), codes.data(), scales.data(), std::max<size_t>(codes.size(), 1)));
    return {};
  }
  for (size_t row = 0; row < matrix.rows; ++row) {
    sums->Add(kernels.fp8_error(matrix.RowAt(row), codes.data() + row * matrix.columns,
                                scales.data() + row / block.rows * CeilDiv(matrix.columns, block.columns),
                                block.columns));
  }
  return {};
}

}  // namespace quantport::quantize
