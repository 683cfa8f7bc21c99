// A tensor as a view of bytes that already exist: slicing, concatenating and stacking move no data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quantport/dtype.h"
#include "quantport/error.h"

namespace quantport {

// A box of an array whose elements stand at regular distances in one stored tensor.
//
// Element (i0, i1, ...) of the box is at bit `offset + i0*strides[0] + i1*strides[1] + ...` of the stored tensor's
// data, and at (origin[0] + i0, origin[1] + i1, ...) of the array. Bits, because F4 and F6 elements are no whole bytes.
struct Block {
  uint32_t tensor = 0;  // index into the TensorTable
  uint64_t offset = 0;
  std::vector<uint64_t> extents;
  std::vector<uint64_t> strides;
  std::vector<uint64_t> origin;
};

// A dense row-major array put together from disjoint blocks that cover it.
struct Array {
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
  std::vector<Block> blocks;
  std::vector<std::byte> literal = {};  // the bytes themselves, where no stored tensor has them; no blocks then
};

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

// One straight copy: `bytes` bytes from `source` of the tensor's data to `target` of the array's.
struct Run {
  uint32_t tensor = 0;
  uint64_t source = 0;
  uint64_t target = 0;
  uint64_t bytes = 0;
};

// The copies that produce the array's bytes, in the order of the target, neighbours joined.
// Errors: kQuantConversionUnsupported where sub-byte elements would have to be shifted within bytes.
Result<std::vector<Run>> Runs(const Array& array);

}  // namespace quantport
