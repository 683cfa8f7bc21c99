#include "exec/encode.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "base/checked.h"
#include "exec/matrix_reader.h"
#include "quantize/codes.h"
#include "quantize/fp8.h"
#include "quantize/integer.h"
#include "quantize/mx.h"
#include "quantize/nvfp4.h"
#include "quantize/nvfp4_search.h"

namespace quantport {
namespace {

using quantize::BlockShape;
using quantize::Matrix;

float Normalization(const Encoding& format) { return format.four_over_six ? 256.0f : quantize::kE4m3Max; }

// Rows quantized at a time, in bytes as read. They and their codes fit into the second cache (1 or 2 MiB) with room to
// spare, and so are still there when their errors are measured.
constexpr uint64_t kPieceBytes = 256 << 10;

// Some of the rows, and where their part of the result goes.
struct Piece {
  Matrix rows;
  std::span<uint8_t> codes;
  std::span<uint8_t> scales;
};

size_t CodeBytes(const PlannedMatrix& matrix, const Matrix& rows) {
  const size_t elements = rows.rows * rows.columns;
  switch (matrix.format.format) {
    case FormatId::kPlain:
      return elements * ElementBytes(rows.type);
    case FormatId::kNvfp4:
    case FormatId::kNvfp4WeightOnly:
    case FormatId::kW4A8Nvfp4Fp8:
    case FormatId::kMxfp4:
    case FormatId::kW4A8Mxfp4Fp8:
    case FormatId::kInt4:
    case FormatId::kW4A8Awq:
      return elements / 2;
    default:
      return elements;
  }
}

// Of those that the format has several of.
size_t ScaleBytes(const PlannedMatrix& matrix, const Matrix& rows) {
  const size_t block = matrix.format.block;
  switch (matrix.format.format) {
    case FormatId::kNvfp4:
    case FormatId::kNvfp4WeightOnly:
    case FormatId::kW4A8Nvfp4Fp8:
      return rows.rows * rows.columns / block;
    case FormatId::kMxfp8:
    case FormatId::kMxfp4:
    case FormatId::kW4A8Mxfp4Fp8:
      return rows.rows * rows.columns / quantize::kMxBlock;
    case FormatId::kFp8PerChannel:
    case FormatId::kInt8SmoothQuant:
    case FormatId::kInt8:
      return rows.rows * sizeof(float);
    case FormatId::kFp8Block:
      return matrix.scalar_scale ? 0 : CeilDiv(rows.rows, block) * CeilDiv(rows.columns, block) * sizeof(float);
    case FormatId::kInt4:
      return rows.rows * CeilDiv(rows.columns, block) * sizeof(float);
    default:
      return 0;
  }
}

void StoreScales(const std::vector<float>& scales, const Piece& piece) {
  std::memcpy(piece.scales.data(), scales.data(), std::min(piece.scales.size(), scales.size() * sizeof(float)));
}

// `amax_type` is that in which ModelOpt keeps amax.
Result<std::vector<float>> BlockScales(const Encoding& format, const Matrix& rows, BlockShape block, float largest,
                                       quantize::ElementType amax_type, quantize::Arithmetic arithmetic) {
  std::vector<float> amax(CeilDiv(rows.rows, block.rows) * CeilDiv(rows.columns, block.columns));
  const auto search = AmaxSearchOf(format);
  const Status status = search ? quantize::SearchAmax(rows, block, search->format, search->multipliers, amax_type, amax)
                               : quantize::BlockAmax(rows, block, amax);
  if (!status) return status.errors();
  std::vector<float> scales(amax.size());
  quantize::GuardedScales(amax, largest, amax_type, arithmetic, scales);
  return scales;
}

// Block scales that ModelOpt's static quantizer would have stored.
Status StaticScales(const PlannedMatrix& matrix, const Matrix& rows, float group_amax,
                    const quantize::Numerics& numerics, std::span<uint8_t> scales) {
  const Encoding& format = matrix.format;
  std::vector<float> amax(rows.rows * (rows.columns / format.block));
  Status status;
  switch (format.search) {
    case ScaleSearch::kNone:
      status = quantize::BlockAmax(rows, {1, format.block}, amax);
      break;
    case ScaleSearch::kSweep:
      status = quantize::SweepNvfp4Amax(rows, format.block, group_amax, amax);
      break;
    case ScaleSearch::kMultipliers:
      status = quantize::SearchNvfp4Amax(
          rows, format.block, group_amax, Normalization(format),
          quantize::SearchMultipliers(format.search_start, format.search_stop, format.search_step), amax);
      break;
  }
  if (!status) return status;
  quantize::StaticNvfp4Scales(amax, group_amax, Normalization(format), numerics.arithmetic, scales);
  return {};
}

Status EncodeNvfp4(const PlannedMatrix& matrix, const Piece& piece, float group_amax,
                   const quantize::Numerics& numerics, quantize::ErrorSums* sums) {
  const size_t block = matrix.format.block;
  const float scale_2 = ScalarScale(matrix, group_amax, numerics);
  Status status;
  if (matrix.format.static_blocks) {
    status = StaticScales(matrix, piece.rows, group_amax, numerics, piece.scales);
    if (status) status = quantize::QuantizeNvfp4WithScales(piece.rows, scale_2, block, piece.scales, piece.codes);
  } else {
    status = quantize::QuantizeNvfp4(piece.rows, scale_2, block, numerics, piece.scales, piece.codes);
  }
  if (!status) return status;
  return quantize::MeasureNvfp4(piece.rows, piece.codes, block, piece.scales, scale_2, sums);
}

Status EncodeFp8Tensor(const PlannedMatrix& matrix, const Piece& piece, float group_amax,
                       const quantize::Numerics& numerics, quantize::ErrorSums* sums) {
  const float scale = ScalarScale(matrix, group_amax, numerics);
  if (auto s = quantize::QuantizeFp8Tensor(piece.rows, scale, numerics.arithmetic, piece.codes); !s) return s;
  return quantize::MeasureFp8(piece.rows, piece.codes, {piece.rows.rows, piece.rows.columns}, {&scale, 1}, sums);
}

// A tile whose scale has no dimensions, and yet promotes: the quotient stays in F32.
Status EncodeFp8Tile(const PlannedMatrix& matrix, const Piece& piece, float group_amax,
                     const quantize::Numerics& numerics, quantize::ErrorSums* sums) {
  const float scale = ScalarScale(matrix, group_amax, numerics);
  const BlockShape tile = {piece.rows.rows, piece.rows.columns};
  if (auto s = quantize::QuantizeFp8(piece.rows, tile, {&scale, 1}, piece.codes); !s) return s;
  return quantize::MeasureFp8(piece.rows, piece.codes, tile, {&scale, 1}, sums);
}

Status EncodeFp8Blocks(const Encoding& format, const Piece& piece, BlockShape block, const quantize::Numerics& numerics,
                       quantize::ErrorSums* sums) {
  auto scales = BlockScales(format, piece.rows, block, quantize::kE4m3Max, piece.rows.type, numerics.arithmetic);
  if (!scales) return scales.errors();
  if (auto s = quantize::QuantizeFp8(piece.rows, block, *scales, piece.codes); !s) return s;
  StoreScales(*scales, piece);
  return quantize::MeasureFp8(piece.rows, piece.codes, block, *scales, sums);
}

Status EncodeMx(FormatId format, const Piece& piece, quantize::ErrorSums* sums) {
  if (auto s = quantize::QuantizeMx(format, piece.rows, piece.scales, piece.codes); !s) return s;
  return quantize::MeasureMx(format, piece.rows, piece.codes, piece.scales, sums);
}

Status EncodeInt8(const Encoding& format, const Piece& piece, const quantize::Numerics& numerics,
                  quantize::ErrorSums* sums) {
  const size_t columns = piece.rows.columns;
  auto scales = BlockScales(format, piece.rows, {1, columns}, 127, piece.rows.type, numerics.arithmetic);
  if (!scales) return scales.errors();
  if (auto s = quantize::QuantizeInt8(piece.rows, columns, *scales, piece.codes); !s) return s;
  StoreScales(*scales, piece);
  return quantize::MeasureInt8(piece.rows, piece.codes, columns, *scales, sums);
}

Status EncodeInt4(const Encoding& format, const Piece& piece, const quantize::Numerics& numerics,
                  quantize::ErrorSums* sums) {
  const size_t group = format.block;
  auto scales = BlockScales(format, piece.rows, {1, group}, 7, quantize::ElementType::kF32, numerics.arithmetic);
  if (!scales) return scales.errors();
  if (auto s = quantize::QuantizeInt4(piece.rows, group, *scales, piece.codes); !s) return s;
  StoreScales(*scales, piece);
  return quantize::MeasureInt4(piece.rows, piece.codes, group, *scales, sums);
}

Status EncodePiece(const PlannedMatrix& matrix, const Piece& piece, float group_amax,
                   const quantize::Numerics& numerics, quantize::ErrorSums* sums) {
  const size_t block = matrix.format.block;
  switch (matrix.format.format) {
    case FormatId::kPlain:
      std::memcpy(piece.codes.data(), piece.rows.bytes.data(), piece.codes.size());
      return {};
    case FormatId::kFp8PerTensor:
      // The scale of a tensor with three dimensions is given one.
      if (matrix.batched > 0) return EncodeFp8Tile(matrix, piece, group_amax, numerics, sums);
      return EncodeFp8Tensor(matrix, piece, group_amax, numerics, sums);
    case FormatId::kFp8PerChannel:
      return EncodeFp8Blocks(matrix.format, piece, {1, piece.rows.columns}, numerics, sums);
    case FormatId::kFp8Block:
      if (matrix.scalar_scale) return EncodeFp8Tile(matrix, piece, group_amax, numerics, sums);
      return EncodeFp8Blocks(matrix.format, piece, {block, block}, numerics, sums);
    case FormatId::kMxfp8:
      return EncodeMx(FormatId::kMxfp8, piece, sums);
    case FormatId::kMxfp4:
    case FormatId::kW4A8Mxfp4Fp8:
      return EncodeMx(FormatId::kMxfp4, piece, sums);
    case FormatId::kNvfp4:
    case FormatId::kNvfp4WeightOnly:
    case FormatId::kW4A8Nvfp4Fp8:
      return EncodeNvfp4(matrix, piece, group_amax, numerics, sums);
    case FormatId::kInt8SmoothQuant:
    case FormatId::kInt8:
      return EncodeInt8(matrix.format, piece, numerics, sums);
    case FormatId::kInt4:
      return EncodeInt4(matrix.format, piece, numerics, sums);
    default:
      break;
  }
  return Error{ErrorKind::kQuantConversionUnsupported, "a format that is not written", {}, matrix.name, {}};
}

}  // namespace

std::optional<AmaxSearch> AmaxSearchOf(const Encoding& format) {
  if (format.search != ScaleSearch::kMultipliers || format.static_blocks) return std::nullopt;
  const bool int8 = format.format == FormatId::kInt8SmoothQuant || format.format == FormatId::kInt8;
  return AmaxSearch{int8                               ? FormatId::kInt8
                    : format.format == FormatId::kInt4 ? FormatId::kInt4
                                                       : FormatId::kFp8PerTensor,
                    quantize::SearchMultipliers(format.search_start, format.search_stop, format.search_step)};
}

float ScalarScale(const PlannedMatrix& matrix, float group_amax, const quantize::Numerics& numerics) {
  // W4A8_NVFP4_FP8 divides by 448 alone, as FP8 does.
  const bool nvfp4 = matrix.format.format == FormatId::kNvfp4 || matrix.format.format == FormatId::kNvfp4WeightOnly;
  return nvfp4 ? quantize::Nvfp4GlobalScale(group_amax, Normalization(matrix.format), numerics)
               : quantize::Fp8TensorScale(group_amax, numerics);
}

Status EncodeRows(const PlannedMatrix& matrix, const quantize::Matrix& rows, float group_amax,
                  const quantize::Numerics& numerics, EncodedRows* out, quantize::ErrorSums* sums) {
  out->codes.resize(CodeBytes(matrix, rows));
  out->scales.resize(ScaleBytes(matrix, rows));
  const size_t row_bytes = rows.columns * ElementBytes(rows.type);
  const size_t step = RowStep(matrix);
  const size_t most = std::max(step, kPieceBytes / std::max<size_t>(row_bytes, 1) / step * step);
  std::span<uint8_t> codes = out->codes, scales = out->scales;
  for (size_t first = 0; first < rows.rows; first += most) {
    const size_t count = std::min(most, rows.rows - first);
    Piece piece = {{rows.bytes.subspan(first * row_bytes, count * row_bytes), rows.type, count, rows.columns}, {}, {}};
    piece.codes = codes.first(CodeBytes(matrix, piece.rows));
    piece.scales = scales.first(ScaleBytes(matrix, piece.rows));
    codes = codes.subspan(piece.codes.size());
    scales = scales.subspan(piece.scales.size());
    if (auto s = EncodePiece(matrix, piece, group_amax, numerics, sums); !s) return s;
  }
  return {};
}

}  // namespace quantport
