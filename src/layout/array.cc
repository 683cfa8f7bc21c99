#include "layout/array.h"

#include <fmt/format.h>

#include <algorithm>

namespace quantport {
namespace {

std::vector<uint64_t> RowMajorStrides(std::span<const uint64_t> shape, uint64_t element_bits) {
  std::vector<uint64_t> strides(shape.size());
  uint64_t stride = element_bits;
  for (size_t dim = shape.size(); dim-- > 0;) {
    strides[dim] = stride;
    stride *= shape[dim];
  }
  return strides;
}

template <typename T>
void EraseAt(std::vector<T>* values, size_t position) {
  values->erase(values->begin() + static_cast<std::ptrdiff_t>(position));
}

template <typename T>
void InsertAt(std::vector<T>* values, size_t position, T value) {
  values->insert(values->begin() + static_cast<std::ptrdiff_t>(position), value);
}

// Emits the runs of one block: the inner dimensions that are dense in both source and target make up one run.
class BlockRuns {
 public:
  BlockRuns(const Array& array, const Block& block, std::vector<Run>* runs)
      : block_(block),
        target_strides_(RowMajorStrides(array.shape, static_cast<uint64_t>(DTypeBits(array.dtype)))),
        runs_(runs) {
    run_bits_ = static_cast<uint64_t>(DTypeBits(array.dtype));
    outer_ = block.extents.size();
    while (outer_ > 0) {
      const size_t dim = outer_ - 1;
      const bool dense =
          block.extents[dim] == 1 || (block.strides[dim] == run_bits_ && target_strides_[dim] == run_bits_);
      if (!dense) break;
      run_bits_ *= block.extents[dim];
      --outer_;
    }
  }

  // False where a run does not begin or end at a byte.
  bool Emit() {
    if (std::find(block_.extents.begin(), block_.extents.end(), 0) != block_.extents.end()) return true;
    uint64_t target = 0;
    for (size_t dim = 0; dim < block_.extents.size(); ++dim) target += block_.origin[dim] * target_strides_[dim];
    return Walk(0, block_.offset, target);
  }

 private:
  bool Walk(size_t dim, uint64_t source, uint64_t target) {
    if (dim == outer_) {
      if ((source | target | run_bits_) % 8 != 0) return false;
      runs_->push_back({block_.tensor, source / 8, target / 8, run_bits_ / 8});
      return true;
    }
    for (uint64_t i = 0; i < block_.extents[dim]; ++i) {
      if (!Walk(dim + 1, source + i * block_.strides[dim], target + i * target_strides_[dim])) return false;
    }
    return true;
  }

  const Block& block_;
  std::vector<uint64_t> target_strides_;
  std::vector<Run>* runs_;
  uint64_t run_bits_ = 0;
  size_t outer_ = 0;
};

}  // namespace

Array WholeTensor(uint32_t tensor, DType dtype, std::span<const uint64_t> shape) {
  Array array{dtype, {shape.begin(), shape.end()}, {}};
  array.blocks.push_back({tensor, 0, array.shape, RowMajorStrides(shape, static_cast<uint64_t>(DTypeBits(dtype))),
                          std::vector<uint64_t>(shape.size(), 0)});
  return array;
}

Array Slice(const Array& array, size_t dim, uint64_t begin, uint64_t length) {
  Array out{array.dtype, array.shape, {}};
  out.shape[dim] = length;
  for (const Block& block : array.blocks) {
    const uint64_t from = std::max(begin, block.origin[dim]);
    const uint64_t to = std::min(begin + length, block.origin[dim] + block.extents[dim]);
    if (from >= to && length != 0) continue;
    Block part = block;
    part.offset += (from - block.origin[dim]) * block.strides[dim];
    part.extents[dim] = to > from ? to - from : 0;
    part.origin[dim] = from - begin;
    out.blocks.push_back(std::move(part));
  }
  return out;
}

Array Select(const Array& array, size_t dim, uint64_t index) {
  Array out = Slice(array, dim, index, 1);
  EraseAt(&out.shape, dim);
  for (Block& block : out.blocks) {
    EraseAt(&block.extents, dim);
    EraseAt(&block.strides, dim);
    EraseAt(&block.origin, dim);
  }
  return out;
}

Array Concatenate(std::span<const Array> arrays, size_t dim) {
  Array out{arrays[0].dtype, arrays[0].shape, {}};
  out.shape[dim] = 0;
  for (const Array& array : arrays) {
    for (Block block : array.blocks) {
      block.origin[dim] += out.shape[dim];
      out.blocks.push_back(std::move(block));
    }
    out.shape[dim] += array.shape[dim];
  }
  return out;
}

Array Stack(std::span<const Array> arrays, size_t dim) {
  Array out{arrays[0].dtype, arrays[0].shape, {}};
  InsertAt<uint64_t>(&out.shape, dim, arrays.size());
  for (size_t i = 0; i < arrays.size(); ++i) {
    for (Block block : arrays[i].blocks) {
      InsertAt<uint64_t>(&block.extents, dim, 1);
      InsertAt<uint64_t>(&block.strides, dim, 0);
      InsertAt<uint64_t>(&block.origin, dim, i);
      out.blocks.push_back(std::move(block));
    }
  }
  return out;
}

Result<std::vector<Run>> Runs(const Array& array) {
  std::vector<Run> runs;
  for (const Block& block : array.blocks) {
    if (!BlockRuns(array, block, &runs).Emit()) {
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
    const bool joins = runs[i].tensor == previous.tensor && runs[i].source == previous.source + previous.bytes &&
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
