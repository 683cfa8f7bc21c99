#include "exec/batched_reader.h"

#include "quantize/codes.h"

namespace quantport {
namespace {

float Nibble(uint8_t byte, uint64_t index) { return quantize::kE2m1Values[byte >> (index % 2 * 4) & 15]; }

}  // namespace

Status ReadBatchedNvfp4(const PlannedMatrix& matrix, uint64_t expert, uint64_t first_row, uint64_t rows,
                        const StoredBytes& stored, float scale_2, const quantize::Output& out) {
  const MatrixSource& source = matrix.source;
  const uint64_t columns = matrix.columns;
  const uint64_t block = source.tile_rows;
  const uint64_t row = expert * (matrix.rows / source.experts) + first_row;
  auto codes = stored.Read(source.codes, row / 2 * columns, rows / 2 * columns);
  if (!codes) return codes.errors();
  auto scales = stored.Read(*source.scales, row / block * columns, rows / block * columns);
  if (!scales) return scales.errors();
  for (uint64_t r = 0; r < rows; ++r) {
    for (uint64_t c = 0; c < columns; ++c) {
      const float scale = quantize::DecodeE4m3((*scales)[r / block * columns + c]) * scale_2;
      out.Store(r * columns + c, Nibble((*codes)[r / 2 * columns + c], r) * scale);
    }
  }
  return {};
}

Status ReadMxfp4Blocks(const PlannedMatrix& matrix, uint64_t expert, uint64_t first_row, uint64_t rows,
                       const StoredBytes& stored, const quantize::Output& out) {
  const MatrixSource& source = matrix.source;
  const uint64_t columns = matrix.columns;
  const uint64_t block = source.tile_rows;
  const uint64_t inputs = matrix.rows / source.experts;
  // Of the outputs of all experts, each a row of bytes.
  auto codes =
      stored.ReadColumns(source.codes, columns, inputs / 2, expert * columns * inputs / 2 + first_row / 2, rows / 2);
  if (!codes) return codes.errors();
  auto scales = stored.ReadColumns(*source.scales, columns, inputs / block,
                                   expert * columns * inputs / block + first_row / block, rows / block);
  if (!scales) return scales.errors();
  for (uint64_t r = 0; r < rows; ++r) {
    for (uint64_t c = 0; c < columns; ++c) {
      const float scale = quantize::DecodeE8m0((*scales)[c * (rows / block) + r / block]);
      out.Store(r * columns + c, Nibble((*codes)[c * (rows / 2) + r / 2], r) * scale);
    }
  }
  return {};
}

}  // namespace quantport
