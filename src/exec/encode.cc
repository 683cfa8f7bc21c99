#include "exec/encode.h"

#include <cstring>

#include "base/checked.h"
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

float Normalization(const WeightFormat& format) { return format.four_over_six ? 256.0f : quantize::kE4m3Max; }

void StoreScales(const std::vector<float>& scales, EncodedRows* out) {
  out->scales.resize(scales.size() * sizeof(float));
  std::memcpy(out->scales.data(), scales.data(), out->scales.size());
}

// `amax_type` is that in which ModelOpt keeps amax.
Result<std::vector<float>> BlockScales(const WeightFormat& format, const Matrix& rows, BlockShape block, float largest,
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
                    const quantize::Numerics& numerics, std::vector<uint8_t>* scales) {
  const WeightFormat& format = matrix.format;
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
  scales->resize(amax.size());
  quantize::StaticNvfp4Scales(amax, group_amax, Normalization(format), numerics.arithmetic, *scales);
  return {};
}

Status EncodeNvfp4(const PlannedMatrix& matrix, const Matrix& rows, float group_amax,
                   const quantize::Numerics& numerics, EncodedRows* out, quantize::ErrorSums* sums) {
  const size_t block = matrix.format.block;
  const float scale_2 = ScalarScale(matrix, group_amax, numerics);
  out->codes.resize(rows.rows * rows.columns / 2);
  Status status;
  if (matrix.format.static_blocks) {
    status = StaticScales(matrix, rows, group_amax, numerics, &out->scales);
    if (status) status = quantize::QuantizeNvfp4WithScales(rows, scale_2, block, out->scales, out->codes);
  } else {
    out->scales.resize(rows.rows * rows.columns / block);
    status = quantize::QuantizeNvfp4(rows, scale_2, block, numerics, out->scales, out->codes);
  }
  if (!status) return status;
  return quantize::MeasureNvfp4(rows, out->codes, block, out->scales, scale_2, sums);
}

Status EncodeFp8Tensor(const PlannedMatrix& matrix, const Matrix& rows, float group_amax,
                       const quantize::Numerics& numerics, EncodedRows* out, quantize::ErrorSums* sums) {
  const float scale = ScalarScale(matrix, group_amax, numerics);
  out->codes.resize(rows.rows * rows.columns);
  if (auto s = quantize::QuantizeFp8Tensor(rows, scale, numerics.arithmetic, out->codes); !s) return s;
  return quantize::MeasureFp8(rows, out->codes, {rows.rows, rows.columns}, {&scale, 1}, sums);
}

// A tile whose scale has no dimensions, and yet promotes: the quotient stays in F32.
Status EncodeFp8Tile(const PlannedMatrix& matrix, const Matrix& rows, float group_amax,
                     const quantize::Numerics& numerics, EncodedRows* out, quantize::ErrorSums* sums) {
  const float scale = ScalarScale(matrix, group_amax, numerics);
  const BlockShape tile = {rows.rows, rows.columns};
  out->codes.resize(rows.rows * rows.columns);
  if (auto s = quantize::QuantizeFp8(rows, tile, {&scale, 1}, out->codes); !s) return s;
  return quantize::MeasureFp8(rows, out->codes, tile, {&scale, 1}, sums);
}

Status EncodeFp8Blocks(const WeightFormat& format, const Matrix& rows, BlockShape block,
                       const quantize::Numerics& numerics, EncodedRows* out, quantize::ErrorSums* sums) {
  auto scales = BlockScales(format, rows, block, quantize::kE4m3Max, rows.type, numerics.arithmetic);
  if (!scales) return scales.errors();
  out->codes.resize(rows.rows * rows.columns);
  if (auto s = quantize::QuantizeFp8(rows, block, *scales, out->codes); !s) return s;
  StoreScales(*scales, out);
  return quantize::MeasureFp8(rows, out->codes, block, *scales, sums);
}

Status EncodeMx(quantize::MxFormat format, const Matrix& rows, EncodedRows* out, quantize::ErrorSums* sums) {
  const size_t elements = rows.rows * rows.columns;
  out->codes.resize(format == quantize::MxFormat::kMxfp8 ? elements : elements / 2);
  out->scales.resize(elements / quantize::kMxBlock);
  if (auto s = quantize::QuantizeMx(format, rows, out->scales, out->codes); !s) return s;
  return quantize::MeasureMx(format, rows, out->codes, out->scales, sums);
}

Status EncodeInt8(const WeightFormat& format, const Matrix& rows, const quantize::Numerics& numerics, EncodedRows* out,
                  quantize::ErrorSums* sums) {
  auto scales = BlockScales(format, rows, {1, rows.columns}, 127, rows.type, numerics.arithmetic);
  if (!scales) return scales.errors();
  out->codes.resize(rows.rows * rows.columns);
  if (auto s = quantize::QuantizeInt8(rows, rows.columns, *scales, out->codes); !s) return s;
  StoreScales(*scales, out);
  return quantize::MeasureInt8(rows, out->codes, rows.columns, *scales, sums);
}

Status EncodeInt4(const WeightFormat& format, const Matrix& rows, const quantize::Numerics& numerics, EncodedRows* out,
                  quantize::ErrorSums* sums) {
  const size_t group = format.block;
  auto scales = BlockScales(format, rows, {1, group}, 7, quantize::ElementType::kF32, numerics.arithmetic);
  if (!scales) return scales.errors();
  out->codes.resize(rows.rows * rows.columns / 2);
  if (auto s = quantize::QuantizeInt4(rows, group, *scales, out->codes); !s) return s;
  StoreScales(*scales, out);
  return quantize::MeasureInt4(rows, out->codes, group, *scales, sums);
}

}  // namespace

std::optional<AmaxSearch> AmaxSearchOf(const WeightFormat& format) {
  if (format.search != ScaleSearch::kMultipliers || format.static_blocks) return std::nullopt;
  const bool int8 = format.format == QuantFormat::kInt8 || format.format == QuantFormat::kInt8WeightOnly;
  return AmaxSearch{int8                                  ? quantize::FakeFormat::kInt8
                    : format.format == QuantFormat::kInt4 ? quantize::FakeFormat::kInt4
                                                          : quantize::FakeFormat::kFp8,
                    quantize::SearchMultipliers(format.search_start, format.search_stop, format.search_step)};
}

float ScalarScale(const PlannedMatrix& matrix, float group_amax, const quantize::Numerics& numerics) {
  // W4A8_NVFP4_FP8 divides by 448 alone, as FP8 does.
  const bool nvfp4 = matrix.format.format == QuantFormat::kNvfp4 || matrix.format.format == QuantFormat::kW4A16Nvfp4;
  return nvfp4 ? quantize::Nvfp4GlobalScale(group_amax, Normalization(matrix.format), numerics)
               : quantize::Fp8TensorScale(group_amax, numerics);
}

Status EncodeRows(const PlannedMatrix& matrix, const quantize::Matrix& rows, float group_amax,
                  const quantize::Numerics& numerics, EncodedRows* out, quantize::ErrorSums* sums) {
  out->codes.clear();
  out->scales.clear();
  switch (matrix.format.format) {
    case QuantFormat::kNone:
      out->codes.assign(rows.bytes.begin(), rows.bytes.end());
      return {};
    case QuantFormat::kFp8:
      // The scale of a tensor with three dimensions is given one.
      if (matrix.batched > 0) return EncodeFp8Tile(matrix, rows, group_amax, numerics, out, sums);
      return EncodeFp8Tensor(matrix, rows, group_amax, numerics, out, sums);
    case QuantFormat::kFp8PerChannelPerToken:
      return EncodeFp8Blocks(matrix.format, rows, {1, rows.columns}, numerics, out, sums);
    case QuantFormat::kFp8Block:
      if (matrix.scalar_scale) return EncodeFp8Tile(matrix, rows, group_amax, numerics, out, sums);
      return EncodeFp8Blocks(matrix.format, rows, {matrix.format.block, matrix.format.block}, numerics, out, sums);
    case QuantFormat::kMxfp8:
      return EncodeMx(quantize::MxFormat::kMxfp8, rows, out, sums);
    case QuantFormat::kMxfp4:
    case QuantFormat::kW4A8Mxfp4Fp8:
      return EncodeMx(quantize::MxFormat::kMxfp4, rows, out, sums);
    case QuantFormat::kNvfp4:
    case QuantFormat::kW4A16Nvfp4:
    case QuantFormat::kW4A8Nvfp4Fp8:
      return EncodeNvfp4(matrix, rows, group_amax, numerics, out, sums);
    case QuantFormat::kInt8:
    case QuantFormat::kInt8WeightOnly:
      return EncodeInt8(matrix.format, rows, numerics, out, sums);
    case QuantFormat::kInt4:
      return EncodeInt4(matrix.format, rows, numerics, out, sums);
    case QuantFormat::kInt4Fp8:
      break;
  }
  return Error{ErrorKind::kQuantConversionUnsupported, "a format that is not written", {}, matrix.name, {}};
}

}  // namespace quantport
