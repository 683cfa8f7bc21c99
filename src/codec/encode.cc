// What encoding has in common: pieces that stay in the cache, scales of blocks, and blocks that run down the columns.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "codec/families.h"
#include "quantize/amax_search.h"
#include "quantize/nvfp4_search.h"

namespace quantport {
namespace {

using quantize::BlockShape;
using quantize::Matrix;

// Rows quantized at a time, in bytes as read. They and their codes fit into the second cache (1 or 2 MiB) with room to
// spare, and so are still there when their errors are measured.
constexpr uint64_t kPieceBytes = 256 << 10;

Status EncodePieces(const Target& target, const Matrix& rows, size_t step, float amax,
                    const quantize::Numerics& numerics, EncodedRows* out, quantize::ErrorSums* sums,
                    std::span<const uint8_t> powers) {
  const Codec& codec = CodecOf(target.encoding.format);
  out->codes.resize(CodeBytes(target, rows.type, rows.rows, rows.columns));
  out->scales.resize(ScaleBytes(target, rows.rows, rows.columns));
  const size_t row_bytes = rows.columns * ElementBytes(rows.type);
  const size_t most = std::max(step, kPieceBytes / std::max<size_t>(row_bytes, 1) / step * step);
  std::span<uint8_t> codes = out->codes, scales = out->scales;
  for (size_t first = 0; first < rows.rows; first += most) {
    const size_t count = std::min(most, rows.rows - first);
    const Matrix piece = {rows.bytes.subspan(first * row_bytes, count * row_bytes), rows.type, count, rows.columns};
    const size_t code_bytes = CodeBytes(target, rows.type, count, rows.columns);
    const size_t scale_bytes = ScaleBytes(target, count, rows.columns);
    EncodeJob job = {target, piece, amax, numerics, codes.first(code_bytes), scales.first(scale_bytes), sums};
    if (!powers.empty()) job.powers = powers.subspan(out->scales.size() - scales.size(), scale_bytes);
    if (auto s = codec.encode(job); !s) return s;
    codes = codes.subspan(code_bytes);
    scales = scales.subspan(scale_bytes);
  }
  return {};
}

// Slabs of `rows` x `columns` elements of `size` bytes, each turned to `columns` x `rows`.
template <size_t size>
void TurnSlabs(const uint8_t* from, size_t slabs, size_t rows, size_t columns, uint8_t* to) {
  for (size_t slab = 0; slab < slabs; ++slab) {
    const uint8_t* source = from + slab * rows * columns * size;
    for (size_t column = 0; column < columns; ++column) {
      for (size_t row = 0; row < rows; ++row, to += size)
        std::memcpy(to, source + (row * columns + column) * size, size);
    }
  }
}

// Rows of inputs, of which each column of a block is a block: the slab of a block's rows is turned over for the
// kernels, and its codes back. ModelOpt quantizes batched experts of NVFP4 in the order [experts, out, in] and stores
// the transposed view, two inputs in a byte.
Status EncodeDown(const Target& target, const Matrix& rows, float amax, const quantize::Numerics& numerics,
                  EncodedRows* out, quantize::ErrorSums* sums, std::span<const uint8_t> powers) {
  const size_t block = target.encoding.block;
  const size_t slabs = rows.rows / block;
  std::vector<uint8_t> turned(rows.bytes.size());
  if (ElementBytes(rows.type) == 4) {
    TurnSlabs<4>(rows.bytes.data(), slabs, block, rows.columns, turned.data());
  } else {
    TurnSlabs<2>(rows.bytes.data(), slabs, block, rows.columns, turned.data());
  }
  const Matrix blocks = {turned, rows.type, slabs * rows.columns, block};
  if (auto s = EncodePieces(target, blocks, block, amax, numerics, out, sums, powers); !s) return s;
  // A block's scale stands where it belongs already: one for each column, slab by slab.
  turned.resize(out->codes.size());
  TurnSlabs<1>(out->codes.data(), slabs, rows.columns, block / 2, turned.data());
  std::swap(out->codes, turned);
  return {};
}

}  // namespace

void StoreScales(const std::vector<float>& scales, const EncodeJob& job) {
  std::memcpy(job.scales.data(), scales.data(), std::min(job.scales.size(), scales.size() * sizeof(float)));
}

Result<std::vector<float>> BlockScales(const EncodeJob& job, BlockShape block, float largest,
                                       quantize::ElementType amax_type) {
  const Matrix& rows = job.rows;
  std::vector<float> amax(CeilDiv(rows.rows, block.rows) * CeilDiv(rows.columns, block.columns));
  const auto search = AmaxSearchOf(job.target.encoding);
  const Status status = search ? quantize::SearchAmax(rows, block, search->format, search->multipliers, amax_type, amax)
                               : quantize::BlockAmax(rows, block, amax);
  if (!status) return status.errors();
  std::vector<float> scales(amax.size());
  quantize::GuardedScales(amax, largest, amax_type, job.numerics.arithmetic, scales);
  return scales;
}

Status EncodeRows(const Target& target, const Matrix& rows, float amax, const quantize::Numerics& numerics,
                  EncodedRows* out, quantize::ErrorSums* sums, std::span<const uint8_t> powers) {
  if (target.variant.inputs_first) return EncodeDown(target, rows, amax, numerics, out, sums, powers);
  return EncodePieces(target, rows, WriteStep(target), amax, numerics, out, sums, powers);
}

uint64_t WriteStep(const Target& target) {
  if (target.variant.inputs_first) return target.variant.group;
  const Codec& codec = CodecOf(target.encoding.format);
  return codec.write_step == nullptr ? 1 : codec.write_step(target);
}

size_t CodeBytes(const Target& target, quantize::ElementType type, uint64_t rows, uint64_t columns) {
  if (target.encoding.format == FormatId::kPlain) return rows * columns * ElementBytes(type);
  return rows * columns * CodecOf(target.encoding.format).code_bits / 8;
}

size_t ScaleBytes(const Target& target, uint64_t rows, uint64_t columns) {
  const Codec& codec = CodecOf(target.encoding.format);
  return codec.scale_bytes == nullptr ? 0 : codec.scale_bytes(target, rows, columns);
}

float ScalarScale(const Target& target, float amax, const quantize::Numerics& numerics) {
  return CodecOf(target.encoding.format).scalar(target, amax, numerics);
}

std::optional<AmaxSearch> AmaxSearchOf(const Encoding& encoding) {
  // The static quantizer of NVFP4 searches for blocks, which its codec does.
  const FormatId format = CodecOf(encoding.format).searched_as;
  if (encoding.search != ScaleSearch::kMultipliers || encoding.static_blocks || format == FormatId::kPlain)
    return std::nullopt;
  return AmaxSearch{format,
                    quantize::SearchMultipliers(encoding.search_start, encoding.search_stop, encoding.search_step)};
}

}  // namespace quantport
