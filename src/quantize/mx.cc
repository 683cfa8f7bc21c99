#include "quantize/mx.h"

#include "quantize/check.h"

namespace quantport::quantize {
namespace {

size_t CodesPerByte(FormatId format) { return format == FormatId::kMxfp4 ? 2 : 1; }

Status ExpectBlocks(FormatId format, size_t rows, size_t columns, size_t codes, size_t scales) {
  if (Status status = ExpectMultiple("columns", columns, kMxBlock); !status) return status;
  const auto elements = CheckedMul<uint64_t>(rows, columns);
  if (!elements) return Refuse("the shape overflows");
  if (Status status = ExpectSize("codes", codes, *elements / CodesPerByte(format)); !status) return status;
  return ExpectSize("scales", scales, *elements / kMxBlock);
}

}  // namespace

Status QuantizeMx(FormatId format, const Matrix& matrix, std::span<uint8_t> scales, std::span<uint8_t> codes,
                  const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectBlocks(format, matrix.rows, matrix.columns, codes.size(), scales.size()); !status)
    return status;
  const auto quantize = format == FormatId::kMxfp8 ? kernels.mxfp8 : kernels.mxfp4;
  quantize(matrix.Flat(), scales.data(), codes.data());
  return {};
}

Status DequantizeMx(FormatId format, std::span<const uint8_t> codes, size_t rows, size_t columns,
                    std::span<const uint8_t> scales, std::span<uint8_t> output, ElementType type,
                    const Kernels& kernels) {
  if (Status status = ExpectBlocks(format, rows, columns, codes.size(), scales.size()); !status) return status;
  if (Status status = ExpectMatrix({output, type, rows, columns}); !status) return status;
  const auto dequantize = format == FormatId::kMxfp8 ? kernels.from_mxfp8 : kernels.from_mxfp4;
  dequantize(codes.data(), rows * columns, scales.data(), {output.data(), type});
  return {};
}

Status MeasureMx(FormatId format, const Matrix& matrix, std::span<const uint8_t> codes, std::span<const uint8_t> scales,
                 ErrorSums* sums, const Kernels& kernels) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (Status status = ExpectBlocks(format, matrix.rows, matrix.columns, codes.size(), scales.size()); !status)
    return status;
  const auto measure = format == FormatId::kMxfp8 ? kernels.mxfp8_error : kernels.mxfp4_error;
  sums->Add(measure(matrix.Flat(), codes.data(), scales.data()));
  return {};
}

}  // namespace quantport::quantize
