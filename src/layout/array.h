// A tensor as a view of bytes that already exist: slicing, concatenating, stacking and permuting move no data.
#pragma once

#include <absl/container/inlined_vector.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quantport/dtype.h"
#include "quantport/error.h"

namespace quantport {

// One dimension of a block: `extent` elements, `stride` bits apart in the stored tensor, from index `origin` of the
// array on. Bits, because F4 and F6 elements are no whole bytes.
struct BlockDim {
  uint64_t extent = 0;
  uint64_t stride = 0;
  uint64_t origin = 0;

  friend bool operator==(const BlockDim&, const BlockDim&) = default;
};

// A box of an array whose elements stand at regular distances in one stored tensor, the first at bit `offset`.
struct Block {
  uint32_t tensor = 0;  // index into the TensorTable, or kZeros
  uint32_t step = 0;    // what is computed on its elements: 0 nothing, else 1 + index into SharedScales::steps
  uint64_t offset = 0;
  absl::InlinedVector<BlockDim, 3> dims;

  friend bool operator==(const Block&, const Block&) = default;
};

// Instead of a tensor: zeros that are stored nowhere.
inline constexpr uint32_t kZeros = UINT32_MAX;

// A dense row-major array put together from disjoint blocks that cover it.
struct Array {
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
  // Nearly every array is one block of at most three dimensions; planning 200,000 of them spent a third of its time on
  // allocations when both were vectors.
  absl::InlinedVector<Block, 1> blocks;
  std::vector<std::byte> literal = {};  // the bytes themselves, where no stored tensor has them; no blocks then

  friend bool operator==(const Array&, const Array&) = default;
};

// Zeros of any shape; only to be concatenated behind something stored.
Array ZeroArray(DType dtype, std::span<const uint64_t> shape);

// The whole of a stored tensor.
Array WholeTensor(uint32_t tensor, DType dtype, std::span<const uint64_t> shape);

// Elements [begin, begin + length) along `dim`. Requires begin + length <= shape[dim].
Array Slice(const Array& array, size_t dim, uint64_t begin, uint64_t length);

// The elements at `index` along `dim`; the dimension goes away and no other, as 0-d stays 0-d and [1] stays [1].
Array Select(const Array& array, size_t dim, uint64_t index);

// The arrays one after the other along `dim`. Requires equal dtypes and, but for `dim`, equal shapes.
Array Concatenate(std::span<const Array> arrays, size_t dim);

// The arrays side by side along a new dimension `dim`. Requires equal dtypes and shapes.
Array Stack(std::span<const Array> arrays, size_t dim);

// Dimension `dim` of n elements as two of n / inner and inner. Requires that inner divides n.
Array SplitDim(const Array& array, size_t dim, uint64_t inner);

// Dimensions `dim` and `dim` + 1 as one: the inverse of SplitDim. Where they are not regular together, a block becomes
// as many as it has rows.
Array MergeDims(const Array& array, size_t dim);

Array SwapDims(const Array& array, size_t a, size_t b);

// The same elements with `step` to be computed on each. Requires that no other step is.
Array WithStep(Array array, uint32_t step);

// One straight copy: `bytes` bytes from `source` of the tensor's data to `target` of the array's.
struct Run {
  uint32_t tensor = 0;  // or kZeros
  uint64_t source = 0;
  uint64_t target = 0;
  uint64_t bytes = 0;
  uint32_t step = 0;  // as in Block

  friend bool operator==(const Run&, const Run&) = default;
};

// How many runs it takes, neighbours not yet joined: to be asked before Runs(), since a transposed weight has as many
// as elements.
uint64_t RunCount(const Array& array);

// The copies that produce the array's bytes, in the order of the target, neighbours joined. Not for literals.
// Errors: kQuantConversionUnsupported where sub-byte elements would have to be shifted within bytes.
Result<std::vector<Run>> Runs(const Array& array);

}  // namespace quantport
