#include "exec/matrix_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "base/checked.h"
#include "exec/batched_reader.h"
#include "exec/gather.h"
#include "exec/integer_reader.h"
#include "quantize/codes.h"
#include "quantize/fp8.h"
#include "quantize/integer.h"
#include "quantize/mx.h"
#include "quantize/nvfp4.h"

namespace quantport {
namespace {

// More pieces than this are picked out of the file instead of being read one by one.
constexpr uint64_t kMostRuns = 64;

}  // namespace

bool BlocksRunDown(const PlannedMatrix& matrix) {
  return matrix.batched > 0 &&
         (matrix.format.format == FormatId::kNvfp4 || matrix.format.format == FormatId::kNvfp4WeightOnly);
}

uint64_t RowStep(const PlannedMatrix& matrix) {
  uint64_t step = 1;
  if (matrix.format.format == FormatId::kFp8Block && !matrix.scalar_scale) step = matrix.format.block;
  if (matrix.format.format == FormatId::kInt4 || matrix.source.format == FormatId::kInt4) step = std::lcm(step, 2);
  if (BlocksRunDown(matrix)) step = matrix.format.block;
  if (matrix.source.format == FormatId::kAwq) step = std::lcm(step, 8);
  if (matrix.source.inputs_first || matrix.source.format == FormatId::kFp8Block)
    step = std::lcm(step, matrix.source.tile_rows);
  return step;
}

Status MatrixReader::Read(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, bool again,
                          std::span<std::byte> buffer) const {
  return matrix.source.format == FormatId::kPlain ? ReadPlain(matrix, first_row, rows, again, buffer)
                                                  : ReadStored(matrix, first_row, rows, buffer);
}

Status MatrixReader::ReadPlain(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, bool again,
                               std::span<std::byte> buffer) const {
  const Array part = Slice(matrix.source.array, 0, first_row, rows);
  const uint64_t bytes = rows * matrix.columns * static_cast<uint64_t>(DTypeBits(matrix.dtype)) / 8;
  if (RunCount(part) > std::max(kMostRuns, rows))
    return Gather(part, plan_.files.tensors, sources_, nullptr, 0, buffer.first(bytes));
  auto runs = Runs(part);
  if (!runs) return runs.errors();
  for (const Run& run : *runs) {
    if (run.tensor == kZeros) {
      std::memset(buffer.data() + run.target, 0, run.bytes);
      continue;
    }
    const SourceTensor& tensor = plan_.files.tensors[run.tensor];
    if (auto s = CheckWithin(tensor, run.source, run.bytes); !s) return s;
    const uint64_t from = tensor.offset + run.source;
    auto status = again ? sources_[tensor.source].ReadAt(buffer.subspan(run.target, run.bytes), from)
                        : readers_[tensor.source].Read(buffer, run.target, run.bytes, from);
    if (!status) return status;
  }
  return {};
}

Status MatrixReader::ReadStored(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows,
                                std::span<std::byte> buffer) const {
  const MatrixSource& source = matrix.source;
  const uint64_t columns = matrix.columns;
  const quantize::ElementType type = ElementTypeOf(matrix.dtype);
  const std::span<uint8_t> out(reinterpret_cast<uint8_t*>(buffer.data()), rows * columns * ElementBytes(type));
  if (!IsIntegerLayout(source.format) && !source.smoothing) return Dequantize(matrix, first_row, rows, out, type);
  // Rounded once, at the end.
  std::vector<float> numbers(rows * columns);
  if (IsIntegerLayout(source.format)) {
    auto read = ReadIntegers(matrix, first_row, rows, stored_);
    if (!read) {
      for (Error& error : read.errors()) {
        if (error.tensor.empty()) error.tensor = LeafName(matrix, "weight");
      }
      return read.errors();
    }
    numbers = std::move(*read);
  } else {
    const std::span<uint8_t> bytes(reinterpret_cast<uint8_t*>(numbers.data()), numbers.size() * sizeof(float));
    if (auto s = Dequantize(matrix, first_row, rows, bytes, quantize::ElementType::kF32); !s) return s;
  }
  if (source.smoothing) {
    auto factors = ReadScales(*source.smoothing, 0, columns);
    if (!factors) return factors.errors();
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] *= (*factors)[i % columns];
  }
  const quantize::Output output = {out.data(), type};
  for (size_t i = 0; i < numbers.size(); ++i) output.Store(i, numbers[i]);
  return {};
}

Result<std::vector<float>> MatrixReader::ReadScales(uint32_t tensor, uint64_t first, uint64_t count) const {
  const uint64_t size = static_cast<uint64_t>(DTypeBits(plan_.files.tensors[tensor].dtype)) / 8;
  auto bytes = stored_.Read(tensor, first * size, count * size);
  if (!bytes) return bytes.errors();
  return stored_.Numbers(tensor, *bytes);
}

Status MatrixReader::Dequantize(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, std::span<uint8_t> out,
                                quantize::ElementType type) const {
  const uint64_t each = matrix.rows / matrix.source.experts;
  for (uint64_t row = first_row; row < first_row + rows;) {
    const uint64_t count = std::min(each - row % each, first_row + rows - row);
    const uint64_t row_bytes = matrix.columns * ElementBytes(type);
    const auto part = out.subspan((row - first_row) * row_bytes, count * row_bytes);
    if (auto s = DequantizePart(matrix, row / each, row % each, count, part, type); !s) return s;
    row += count;
  }
  return {};
}

// A number that a matrix has once, or each of its experts.
Result<float> MatrixReader::ReadScalar(const MatrixSource& source, uint32_t tensor, uint64_t expert) const {
  auto read = ReadScales(tensor, source.scalars_of_experts ? expert : 0, 1);
  if (!read) return read.errors();
  return read->front();
}

// Rows of one expert, counted within it; of a matrix by itself, the only one.
Status MatrixReader::DequantizePart(const PlannedMatrix& matrix, uint64_t expert, uint64_t local, uint64_t rows,
                                    std::span<uint8_t> out, quantize::ElementType type) const {
  const MatrixSource& source = matrix.source;
  const uint64_t columns = matrix.columns;
  const uint64_t each = matrix.rows / source.experts;
  const uint64_t first_row = expert * each + local;
  float scale_2 = 1;
  if (source.scale_2) {
    const auto read = ReadScalar(source, *source.scale_2, expert);
    if (!read) return read.errors();
    scale_2 = source.format == FormatId::kNvfp4Pack ? 1 / *read : *read;
  }
  if (source.format == FormatId::kMxfp4Blocks)
    return ReadMxfp4Blocks(matrix, expert, local, rows, stored_, {out.data(), type});
  if (source.inputs_first) return ReadBatchedNvfp4(matrix, expert, local, rows, stored_, scale_2, {out.data(), type});
  const bool packed = source.format != FormatId::kFp8PerTensor && source.format != FormatId::kFp8PerChannel &&
                      source.format != FormatId::kFp8Block && source.format != FormatId::kFp8Group &&
                      source.format != FormatId::kMxfp8 && source.format != FormatId::kInt8 &&
                      source.format != FormatId::kInt8SmoothQuant;
  const uint64_t row_bytes = packed ? columns / 2 : columns;
  auto codes = stored_.Read(source.codes, first_row * row_bytes, rows * row_bytes);
  if (!codes) return codes.errors();
  const uint64_t scale_columns = CeilDiv(columns, source.tile_columns);
  const auto rounding = source.scales_kept ? quantize::ScaleRounding::kKept : quantize::ScaleRounding::kToOutput;
  switch (source.format) {
    case FormatId::kMxfp8:
    case FormatId::kMxfp4:
    case FormatId::kMxfp4Pack:
    case FormatId::kW4A8Mxfp4Fp8: {
      auto scales = stored_.Read(*source.scales, first_row * scale_columns, rows * scale_columns);
      if (!scales) return scales.errors();
      const auto format = source.format == FormatId::kMxfp8 ? FormatId::kMxfp8 : FormatId::kMxfp4;
      return quantize::DequantizeMx(format, *codes, rows, columns, *scales, out, type);
    }
    case FormatId::kNvfp4:
    case FormatId::kNvfp4WeightOnly:
    case FormatId::kNvfp4Awq:
    case FormatId::kNvfp4Pack:
    case FormatId::kW4A8Nvfp4Fp8: {
      auto scales = stored_.Read(*source.scales, first_row * scale_columns, rows * scale_columns);
      if (!scales) return scales.errors();
      return quantize::DequantizeNvfp4(*codes, rows, columns, source.tile_columns, *scales, scale_2, out, type);
    }
    default:
      break;
  }
  const bool whole = source.format == FormatId::kFp8PerTensor;
  const uint64_t scale_row = expert * CeilDiv(each, source.tile_rows) + local / source.tile_rows;
  const uint64_t first_scale = !whole ? scale_row * scale_columns : source.scalars_of_experts ? expert : 0;
  const uint64_t count = whole ? 1 : CeilDiv(rows, source.tile_rows) * scale_columns;
  auto scales = ReadScales(*source.scales, first_scale, count);
  if (!scales) return scales.errors();
  if (source.format == FormatId::kInt4)
    return quantize::DequantizeInt4(*codes, rows, columns, source.tile_columns, *scales, rounding, out, type);
  if (source.format == FormatId::kInt8 || source.format == FormatId::kInt8SmoothQuant)
    return quantize::DequantizeInt8(*codes, rows, columns, columns, *scales, rounding, out, type);
  const quantize::BlockShape tile = {whole ? rows : source.tile_rows, source.tile_columns};
  return quantize::DequantizeFp8(*codes, rows, columns, tile, *scales, rounding, out, type);
}

}  // namespace quantport
