#include "layout/array.h"

#include <fmt/format.h>

#include <algorithm>

namespace quantport {
namespace {

uint64_t ElementBits(const Array& array) { return static_cast<uint64_t>(DTypeBits(array.dtype)); }

using Strides = absl::InlinedVector<uint64_t, 4>;

Strides RowMajorStrides(std::span<const uint64_t> shape, uint64_t element_bits) {
  Strides strides(shape.size());
  uint64_t stride = element_bits;
  for (size_t dim = shape.size(); dim-- > 0;) {
    strides[dim] = stride;
    stride *= shape[dim];
  }
  return strides;
}

using Blocks = absl::InlinedVector<Block, 1>;

template <typename List>
void EraseAt(List* values, size_t position) {
  values->erase(values->begin() + static_cast<std::ptrdiff_t>(position));
}

template <typename List>
void InsertAt(List* values, size_t position, typename List::value_type value) {
  values->insert(values->begin() + static_cast<std::ptrdiff_t>(position), value);
}

bool IsEmpty(const Block& block) {
  return std::any_of(block.dims.begin(), block.dims.end(), [](const BlockDim& dim) { return dim.extent == 0; });
}

// The innermost dimensions that are dense in both source and target make up one run.
struct DenseTail {
  uint64_t bits = 0;  // of a run
  size_t outer = 0;   // dimensions before it
};

DenseTail FindDenseTail(const Block& block, std::span<const uint64_t> target_strides, uint64_t element_bits) {
  DenseTail tail{element_bits, block.dims.size()};
  while (tail.outer > 0) {
    const BlockDim& dim = block.dims[tail.outer - 1];
    const bool dense = dim.extent == 1 || (dim.stride == tail.bits && target_strides[tail.outer - 1] == tail.bits);
    if (!dense) break;
    tail.bits *= dim.extent;
    --tail.outer;
  }
  return tail;
}

class BlockRuns {
 public:
  BlockRuns(const Block& block, std::span<const uint64_t> target_strides, uint64_t element_bits, std::vector<Run>* runs)
      : block_(block),
        target_strides_(target_strides),
        tail_(FindDenseTail(block, target_strides, element_bits)),
        runs_(runs) {}

  // False where a run does not begin or end at a byte.
  bool Emit() {
    if (IsEmpty(block_)) return true;
    uint64_t target = 0;
    for (size_t dim = 0; dim < block_.dims.size(); ++dim) target += block_.dims[dim].origin * target_strides_[dim];
    return Walk(0, block_.offset, target);
  }

 private:
  bool Walk(size_t dim, uint64_t source, uint64_t target) {
    if (dim == tail_.outer) {
      if ((source | target | tail_.bits) % 8 != 0) return false;
      runs_->push_back({block_.tensor, source / 8, target / 8, tail_.bits / 8, block_.step});
      return true;
    }
    for (uint64_t i = 0; i < block_.dims[dim].extent; ++i) {
      if (!Walk(dim + 1, source + i * block_.dims[dim].stride, target + i * target_strides_[dim])) return false;
    }
    return true;
  }

  const Block& block_;
  std::span<const uint64_t> target_strides_;
  DenseTail tail_;
  std::vector<Run>* runs_;
};

// The part of `block` within [begin, begin + length) of `dim`; false where there is none.
bool CutBlock(Block* block, size_t dim, uint64_t begin, uint64_t length) {
  BlockDim& cut = block->dims[dim];
  const uint64_t from = std::max(begin, cut.origin);
  const uint64_t to = std::min(begin + length, cut.origin + cut.extent);
  if (from >= to) return false;
  block->offset += (from - cut.origin) * cut.stride;
  cut = {to - from, cut.stride, from - begin};
  return true;
}

void SplitBlock(const Block& block, size_t dim, uint64_t inner, Blocks* out) {
  const BlockDim whole = block.dims[dim];
  const auto emit = [&](uint64_t begin, uint64_t rows, uint64_t count) {
    Block part = block;
    part.offset += (begin - whole.origin) * whole.stride;
    part.dims[dim] = {rows, whole.stride * inner, begin / inner};
    InsertAt(&part.dims, dim + 1, {count, whole.stride, begin % inner});
    out->push_back(std::move(part));
  };
  const uint64_t end = whole.origin + whole.extent;
  uint64_t begin = whole.origin;
  // A block without elements stays one whatever is selected of it: an array must know which tensor it is of.
  if (begin == end) return emit(begin, 0, begin % inner == 0 ? inner : 0);
  if (begin % inner != 0) {
    const uint64_t count = std::min(end - begin, inner - begin % inner);
    emit(begin, 1, count);
    begin += count;
  }
  if (const uint64_t rows = (end - begin) / inner; rows > 0) {
    emit(begin, rows, inner);
    begin += rows * inner;
  }
  if (begin < end) emit(begin, 1, end - begin);
}

void MergeBlock(const Block& block, size_t dim, uint64_t inner_size, uint64_t merged_size, Blocks* out) {
  const BlockDim outer = block.dims[dim];
  const BlockDim inner = block.dims[dim + 1];
  const auto emit = [&](uint64_t skip, BlockDim merged) {
    Block part = block;
    part.offset += skip * outer.stride;
    EraseAt(&part.dims, dim + 1);
    part.dims[dim] = merged;
    out->push_back(std::move(part));
  };
  if (outer.extent == 0 || inner.extent == 0) return emit(0, {0, inner.stride, 0});
  // Nothing to copy: not a block for each row that a header merely states, but one that all selections find.
  if (IsEmpty(block)) return emit(0, {merged_size, inner.stride, 0});
  if (inner_size == 1) return emit(0, {outer.extent, outer.stride, outer.origin});
  if (inner.extent == inner_size && outer.stride == inner.stride * inner_size)
    return emit(0, {outer.extent * inner_size, inner.stride, outer.origin * inner_size});
  for (uint64_t row = 0; row < outer.extent; ++row)
    emit(row, {inner.extent, inner.stride, (outer.origin + row) * inner_size + inner.origin});
}

}  // namespace

Array WholeTensor(uint32_t tensor, DType dtype, std::span<const uint64_t> shape) {
  Array array{dtype, {shape.begin(), shape.end()}, {}, {}};
  const auto strides = RowMajorStrides(shape, ElementBits(array));
  Block block{tensor, 0, 0, {}};
  block.dims.reserve(shape.size());
  for (size_t dim = 0; dim < shape.size(); ++dim) block.dims.push_back({shape[dim], strides[dim], 0});
  array.blocks.push_back(std::move(block));
  return array;
}

Array ZeroArray(DType dtype, std::span<const uint64_t> shape) { return WholeTensor(kZeros, dtype, shape); }

Array Slice(const Array& array, size_t dim, uint64_t begin, uint64_t length) {
  Array out{array.dtype, array.shape, {}, {}};
  out.shape[dim] = length;
  for (const Block& block : array.blocks) {
    Block part = block;
    if (length == 0) {
      part.dims[dim] = {0, part.dims[dim].stride, 0};
    } else if (!CutBlock(&part, dim, begin, length)) {
      continue;
    }
    out.blocks.push_back(std::move(part));
  }
  return out;
}

Array Select(const Array& array, size_t dim, uint64_t index) {
  Array out = Slice(array, dim, index, 1);
  EraseAt(&out.shape, dim);
  for (Block& block : out.blocks) EraseAt(&block.dims, dim);
  return out;
}

Array Concatenate(std::span<const Array> arrays, size_t dim) {
  Array out{arrays[0].dtype, arrays[0].shape, {}, {}};
  out.shape[dim] = 0;
  for (const Array& array : arrays) {
    for (Block block : array.blocks) {
      block.dims[dim].origin += out.shape[dim];
      out.blocks.push_back(std::move(block));
    }
    out.shape[dim] += array.shape[dim];
  }
  return out;
}

Array Stack(std::span<const Array> arrays, size_t dim) {
  Array out{arrays[0].dtype, arrays[0].shape, {}, {}};
  InsertAt(&out.shape, dim, arrays.size());
  for (size_t i = 0; i < arrays.size(); ++i) {
    for (Block block : arrays[i].blocks) {
      InsertAt(&block.dims, dim, {1, 0, i});
      out.blocks.push_back(std::move(block));
    }
  }
  return out;
}

Array SplitDim(const Array& array, size_t dim, uint64_t inner) {
  Array out{array.dtype, array.shape, {}, {}};
  out.shape[dim] /= inner;
  InsertAt(&out.shape, dim + 1, inner);
  for (const Block& block : array.blocks) SplitBlock(block, dim, inner, &out.blocks);
  return out;
}

Array MergeDims(const Array& array, size_t dim) {
  Array out{array.dtype, array.shape, {}, {}};
  out.shape[dim] *= out.shape[dim + 1];
  EraseAt(&out.shape, dim + 1);
  for (const Block& block : array.blocks) MergeBlock(block, dim, array.shape[dim + 1], out.shape[dim], &out.blocks);
  return out;
}

Array SwapDims(const Array& array, size_t a, size_t b) {
  Array out = array;
  std::swap(out.shape[a], out.shape[b]);
  for (Block& block : out.blocks) std::swap(block.dims[a], block.dims[b]);
  return out;
}

Array WithStep(Array array, uint32_t step) {
  for (Block& block : array.blocks) block.step = step;
  return array;
}

uint64_t RunCount(const Array& array) {
  const auto strides = RowMajorStrides(array.shape, ElementBits(array));
  uint64_t count = 0;
  for (const Block& block : array.blocks) {
    if (IsEmpty(block)) continue;
    const DenseTail tail = FindDenseTail(block, strides, ElementBits(array));
    uint64_t runs = 1;
    for (size_t dim = 0; dim < tail.outer; ++dim) runs *= block.dims[dim].extent;
    count += runs;
  }
  return count;
}

Result<std::vector<Run>> Runs(const Array& array) {
  const auto strides = RowMajorStrides(array.shape, ElementBits(array));
  std::vector<Run> runs;
  for (const Block& block : array.blocks) {
    if (!BlockRuns(block, strides, ElementBits(array), &runs).Emit()) {
      return Error{ErrorKind::kQuantConversionUnsupported,
                   fmt::format("a cut of {} elements does not fall between bytes", DTypeName(array.dtype)),
                   {},
                   {},
                   {}};
    }
  }
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.target < b.target; });
  size_t last = 0;
  for (size_t i = 1; i < runs.size(); ++i) {
    Run& previous = runs[last];
    const bool joins = runs[i].tensor == previous.tensor && runs[i].step == previous.step &&
                       runs[i].source == previous.source + previous.bytes &&
                       runs[i].target == previous.target + previous.bytes;
    if (joins) {
      previous.bytes += runs[i].bytes;
    } else {
      runs[++last] = runs[i];
    }
  }
  if (!runs.empty()) runs.resize(last + 1);
  return runs;
}

}  // namespace quantport
