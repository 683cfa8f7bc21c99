#include "exec/gather.h"

#include <algorithm>
#include <cstring>

#include "exec/stored_bytes.h"

namespace quantport {
namespace {

// A box of elements to move: sizes with distances in source and target, in bytes.
struct BoxDim {
  uint64_t extent = 0;
  uint64_t source = 0;
  uint64_t target = 0;
};

template <typename Element>
void Scatter(const std::byte* from, std::byte* to, uint64_t count, uint64_t to_stride) {
  for (uint64_t i = 0; i < count; ++i) std::memcpy(to + i * to_stride, from + i * sizeof(Element), sizeof(Element));
}

void ScatterElements(const std::byte* from, std::byte* to, uint64_t count, uint64_t to_stride, uint64_t element) {
  switch (element) {
    case 1:
      return Scatter<uint8_t>(from, to, count, to_stride);
    case 2:
      return Scatter<uint16_t>(from, to, count, to_stride);
    case 4:
      return Scatter<uint32_t>(from, to, count, to_stride);
    default:
      return Scatter<uint64_t>(from, to, count, to_stride);
  }
}

class Gatherer {
 public:
  Gatherer(const Array& array, std::span<const SourceTensor> tensors, const Sources& sources, MergedScales* scales)
      : array_(array),
        tensors_(tensors),
        sources_(sources),
        scales_(scales),
        element_(static_cast<uint64_t>(DTypeBits(array.dtype)) / 8) {}

  // Elements [begin, end) of the row-major order, to `out`.
  Status Fill(uint64_t begin, uint64_t end, std::byte* out) {
    out_ = out;
    first_ = begin;
    lower_.assign(array_.shape.size(), 0);
    upper_ = array_.shape;
    return Range(0, begin, end);
  }

 private:
  // Cuts the range into boxes: whole rows of dimension `dim` together, the incomplete ones at both ends by themselves.
  Status Range(size_t dim, uint64_t begin, uint64_t end) {
    if (begin >= end) return {};
    if (dim == array_.shape.size()) return Box();
    uint64_t row = 1;
    for (size_t d = dim + 1; d < array_.shape.size(); ++d) row *= array_.shape[d];
    uint64_t index = begin / row;
    if (begin % row != 0 || end < (index + 1) * row) {
      const uint64_t stop = std::min(end, (index + 1) * row);
      if (auto status = Row(dim, index, begin - index * row, stop - index * row); !status) return status;
      begin = stop;
      ++index;
    }
    if (const uint64_t last = end / row; begin < end && last > index) {
      lower_[dim] = index;
      upper_[dim] = last;
      if (auto status = Box(); !status) return status;
      begin = last * row;
      index = last;
    }
    auto status = begin < end ? Row(dim, index, 0, end - index * row) : Status();
    lower_[dim] = 0;
    upper_[dim] = array_.shape[dim];
    return status;
  }

  Status Row(size_t dim, uint64_t index, uint64_t begin, uint64_t end) {
    lower_[dim] = index;
    upper_[dim] = index + 1;
    return Range(dim + 1, begin, end);
  }

  Status Box() {
    for (const Block& block : array_.blocks) {
      if (auto status = BoxOfBlock(block); !status) return status;
    }
    return {};
  }

  Status BoxOfBlock(const Block& block) {
    uint64_t source = block.offset / 8;
    uint64_t target = 0;
    uint64_t target_stride = element_;
    dims_.clear();
    for (size_t d = array_.shape.size(); d-- > 0;) {
      const BlockDim& dim = block.dims[d];
      const uint64_t from = std::max(lower_[d], dim.origin);
      const uint64_t to = std::min(upper_[d], dim.origin + dim.extent);
      if (from >= to) return {};
      source += (from - dim.origin) * (dim.stride / 8);
      target += from * target_stride;
      if (to - from > 1) dims_.push_back({to - from, dim.stride / 8, target_stride});
      target_stride *= array_.shape[d];
    }
    std::sort(dims_.begin(), dims_.end(), [](const BoxDim& a, const BoxDim& b) { return a.source < b.source; });
    dense_ = 0;
    run_ = element_;
    while (dense_ < dims_.size() && dims_[dense_].source == run_) run_ *= dims_[dense_++].extent;
    buffer_.assign(run_, std::byte{0});
    std::byte* to = out_ + (target - first_ * element_);
    if (block.tensor == kZeros) return Outer(dims_.size(), 0, nullptr, 0, to);
    const SourceTensor& tensor = tensors_[block.tensor];
    uint64_t bytes = element_;
    for (const BoxDim& dim : dims_) bytes += (dim.extent - 1) * dim.source;
    if (auto s = CheckWithin(tensor, source, bytes); !s) return s;
    return Outer(dims_.size(), block.step, &sources_[tensor.source], tensor.offset + source, to);
  }

  // Reads what lies together in the source and puts it where it belongs, the outermost distance first.
  Status Outer(size_t dims, uint32_t step, const ByteSource* file, uint64_t from, std::byte* to) {
    if (dims > dense_) {
      const BoxDim& dim = dims_[dims - 1];
      for (uint64_t i = 0; i < dim.extent; ++i) {
        if (auto status = Outer(dims - 1, step, file, from + i * dim.source, to + i * dim.target); !status)
          return status;
      }
      return {};
    }
    if (file != nullptr) {
      if (auto status = file->ReadAt(buffer_, from); !status) return status;
    }
    if (step != 0) scales_->Apply(step, buffer_);
    Inner(dense_, buffer_.data(), to);
    return {};
  }

  void Inner(size_t dims, const std::byte* from, std::byte* to) const {
    if (dims == 0) {
      std::memcpy(to, from, element_);
      return;
    }
    const BoxDim& dim = dims_[dims - 1];
    if (dims == 1 && dim.target == element_) {
      std::memcpy(to, from, dim.extent * element_);
    } else if (dims == 1) {
      ScatterElements(from, to, dim.extent, dim.target, element_);
    } else {
      for (uint64_t i = 0; i < dim.extent; ++i) Inner(dims - 1, from + i * dim.source, to + i * dim.target);
    }
  }

  const Array& array_;
  std::span<const SourceTensor> tensors_;
  const Sources& sources_;
  MergedScales* scales_;
  const uint64_t element_;
  std::byte* out_ = nullptr;
  uint64_t first_ = 0;           // the element that out_ begins with
  std::vector<uint64_t> lower_;  // of the current box, for each dimension
  std::vector<uint64_t> upper_;
  std::vector<BoxDim> dims_;  // of the current box in the current block, by distance in the source
  size_t dense_ = 0;          // how many of them are one stretch of the source
  uint64_t run_ = 0;          // bytes of that stretch
  std::vector<std::byte> buffer_;
};

}  // namespace

Status Gather(const Array& array, std::span<const SourceTensor> tensors, const Sources& sources, MergedScales* scales,
              uint64_t begin, std::span<std::byte> out) {
  if (!array.literal.empty()) {
    std::copy_n(array.literal.begin() + static_cast<std::ptrdiff_t>(begin), out.size(), out.begin());
    return {};
  }
  const uint64_t element = static_cast<uint64_t>(DTypeBits(array.dtype)) / 8;
  const uint64_t from = begin / element;
  const uint64_t to = (begin + out.size() + element - 1) / element;
  Gatherer gatherer(array, tensors, sources, scales);
  if (begin % element == 0 && out.size() % element == 0) return gatherer.Fill(from, to, out.data());
  // A window's border inside an element.
  std::vector<std::byte> whole((to - from) * element);
  if (auto status = gatherer.Fill(from, to, whole.data()); !status) return status;
  std::memcpy(out.data(), whole.data() + (begin - from * element), out.size());
  return {};
}

}  // namespace quantport
