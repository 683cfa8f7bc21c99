// The error of one row, dequantized piece by piece on the stack.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "base/checked.h"
#include "quantize/kernels.h"

namespace quantport::quantize {

inline constexpr size_t kPieceSize = 4096;
// A scale that is amax / 448, rounded, may miss amax by one part in 2^24; that clips nothing.
inline constexpr float kLimitSlack = 1.0f + 0x1p-16f;

// Calls `piece(first, count)` for pieces of a row that hold whole groups, or lie in one.
template <typename Piece>
void ForEachPiece(size_t size, size_t group, const Piece& piece) {
  for (size_t first = 0; first < size;) {
    const size_t longest =
        group <= kPieceSize ? kPieceSize / group * group : std::min(kPieceSize, group - first % group);
    const size_t count = std::min(longest, size - first);
    piece(first, count);
    first += count;
  }
}

// `dequantize(first, count, output)` gives elements in F32; `limit(g)` the largest magnitude in group g of the row.
template <typename Dequantize, typename Limit>
void MeasureRow(const Kernels& kernels, const Row& row, size_t group, const Dequantize& dequantize, const Limit& limit,
                ErrorSums* sums) {
  ForEachPiece(row.size, group, [&](size_t first, size_t count) {
    std::array<float, kPieceSize> values;
    std::array<float, kPieceSize> limits;
    dequantize(first, count, Output{reinterpret_cast<uint8_t*>(values.data()), ElementType::kF32});
    const size_t piece_group = std::min(group, count);
    for (size_t i = 0; i < CeilDiv(count, piece_group); ++i) limits[i] = limit(first / group + i) * kLimitSlack;
    kernels.add_error(row.Slice(first, count), values.data(), limits.data(), piece_group, sums);
  });
}

}  // namespace quantport::quantize
