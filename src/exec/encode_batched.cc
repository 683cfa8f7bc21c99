#include "exec/encode_batched.h"

#include <cstring>
#include <utility>

namespace quantport {
namespace {

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

}  // namespace

Status EncodeBatched(const PlannedMatrix& matrix, const quantize::Matrix& rows, float group_amax,
                     const quantize::Numerics& numerics, EncodedRows* out, quantize::ErrorSums* sums) {
  const size_t block = matrix.format.block;
  const size_t slabs = rows.rows / block;
  std::vector<uint8_t> turned(rows.bytes.size());
  if (ElementBytes(rows.type) == 4) {
    TurnSlabs<4>(rows.bytes.data(), slabs, block, rows.columns, turned.data());
  } else {
    TurnSlabs<2>(rows.bytes.data(), slabs, block, rows.columns, turned.data());
  }
  const quantize::Matrix blocks = {turned, rows.type, slabs * rows.columns, block};
  if (auto s = EncodeRows(matrix, blocks, group_amax, numerics, out, sums); !s) return s;
  // A block's scale stands where it belongs already: one for each column, slab by slab.
  turned.resize(out->codes.size());
  TurnSlabs<1>(out->codes.data(), slabs, rows.columns, block / 2, turned.data());
  std::swap(out->codes, turned);
  return {};
}

}  // namespace quantport
