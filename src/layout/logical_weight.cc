#include "layout/logical_weight.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "layout/misfits.h"
#include "layout/shared_scales.h"

namespace quantport {
namespace {

Error Unsupported(std::string message, std::string hint = {}) {
  return Error{ErrorKind::kQuantConversionUnsupported, std::move(message), {}, {}, std::move(hint)};
}

// What a part is called in messages.
std::string_view PartName(const StoredPart& part) {
  return part.leaf.empty() ? "the value" : std::string_view(part.leaf);
}

Status CheckKnown(const LogicalWeight& weight, std::string_view operation) {
  if (weight.misfit == nullptr && weight.format != FormatId::kUnrecognized) return {};
  return Unsupported(fmt::format("{} needs to know how this weight is stored, and {}", operation, MisfitText(weight)));
}

// The stored range of logical elements [begin, begin + length): a partial block may only be the last one.
Result<std::pair<uint64_t, uint64_t>> StoredRange(const StoredPart& part, const Axis& axis, uint64_t begin,
                                                  uint64_t length, uint64_t size) {
  if (!axis.whole.empty() && length != size) return Unsupported(fmt::format("{}: {}", PartName(part), axis.whole));
  const bool ends_inside = (begin + length) % axis.granularity != 0 && begin + length != size;
  if (begin % axis.granularity != 0 || ends_inside) {
    return Unsupported(fmt::format("the cut at {} falls inside a block of {} that shares one element of {}",
                                   begin % axis.granularity != 0 ? begin : begin + length, axis.granularity,
                                   PartName(part)));
  }
  const uint64_t first = begin / axis.granularity * axis.multiple;
  return std::pair(first, CeilDiv(begin + length, axis.granularity) * axis.multiple - first);
}

void DropLogicalDim(StoredPart* part, size_t dim) {
  const std::optional<Axis> axis = part->axes[dim];
  part->axes.erase(part->axes.begin() + static_cast<std::ptrdiff_t>(dim));
  if (!axis) return;
  for (auto& other : part->axes) {
    if (other && other->dim > axis->dim) --other->dim;
  }
}

// What one stored element stands for. A tensor may be one block in one weight and many in another.
bool SameAxes(const StoredPart& a, const StoredPart& b) {
  return std::equal(a.axes.begin(), a.axes.end(), b.axes.begin(), b.axes.end(), [](const auto& x, const auto& y) {
    if (!x || !y) return x.has_value() == y.has_value();
    // Where nothing may be cut, a block is all of the dimension, whatever its size.
    const bool whole = !x->whole.empty() && !y->whole.empty();
    return x->dim == y->dim && (whole || (x->granularity == y->granularity && x->multiple == y->multiple));
  });
}

// Weights that are to become one must be stored alike: same layout, same parts in the same order, of same blocks.
Status CheckAlike(const std::vector<LogicalWeight>& weights, std::string_view operation) {
  for (const LogicalWeight& weight : weights) {
    if (auto status = CheckKnown(weight, operation); !status) return status;
    if (weight.format != weights[0].format) {
      return Unsupported(fmt::format("{} of weights in different formats, {} and {}", operation,
                                     FormatName(weights[0].format), FormatName(weight.format)));
    }
    if (weight.parts.size() != weights[0].parts.size()) {
      return Unsupported(fmt::format("{} of weights of which some lack a companion tensor", operation));
    }
    for (size_t i = 0; i < weight.parts.size(); ++i) {
      const StoredPart& a = weights[0].parts[i];
      const StoredPart& b = weight.parts[i];
      if (a.leaf != b.leaf)
        return Unsupported(fmt::format("{} of weights of which some lack {}", operation, PartName(a)));
      if (a.array.dtype != b.array.dtype || a.array.shape.size() != b.array.shape.size()) {
        return Unsupported(fmt::format("{} of weights whose {} differ in dtype or rank", operation, PartName(a)));
      }
      if (!SameAxes(a, b))
        return Unsupported(
            fmt::format("{} of weights whose {} are of blocks or groups of different sizes", operation, PartName(a)));
    }
  }
  return {};
}

}  // namespace

const StoredPart* LogicalWeight::Find(std::string_view leaf) const {
  for (const StoredPart& part : parts) {
    if (part.leaf == leaf) return &part;
  }
  return nullptr;
}

namespace {

// The parts of a weight cut along its inputs give partial sums, to which a bias is added once.
Status CheckBias(const LogicalWeight& weight, size_t dim) {
  const StoredPart* bias = weight.Find("bias");
  if (bias == nullptr || bias->axes[dim]) return {};
  return Unsupported(
      fmt::format("the weight is cut or joined along dimension {}, its inputs, and has a bias, which each "
                  "part would add",
                  dim));
}

}  // namespace

Result<LogicalWeight> SliceWeight(const LogicalWeight& weight, size_t dim, uint64_t begin, uint64_t length) {
  if (begin == 0 && length == weight.shape[dim]) return weight;
  if (auto status = CheckBias(weight, dim); !status) return status.errors();
  LogicalWeight out{weight.format, weight.shape, {}};
  out.shape[dim] = length;
  for (const StoredPart& part : weight.parts) {
    StoredPart piece = part;
    if (const auto& axis = part.axes[dim]) {
      auto range = StoredRange(part, *axis, begin, length, weight.shape[dim]);
      if (!range) return range.errors();
      piece.array = Slice(part.array, axis->dim, range->first, range->second);
    }
    out.parts.push_back(std::move(piece));
  }
  return out;
}

Result<LogicalWeight> Chunk(const LogicalWeight& weight, size_t dim, uint64_t count, uint64_t index) {
  if (auto status = CheckKnown(weight, "Chunk"); !status) return status.errors();
  if (dim >= weight.shape.size())
    return Unsupported(fmt::format("Chunk along dimension {} of a weight with {}", dim, weight.shape.size()));
  const uint64_t size = weight.shape[dim];
  // torch.chunk, which transformers uses, makes the last part smaller where the size does not divide. That is how it
  // cuts convolutions of q, k and v; a linear's fused parts are equal by construction, so there it would cut wrong.
  const bool even = size % count == 0;
  const uint64_t step = CeilDiv(size, count);
  if (!even && (weight.format != FormatId::kPlain || weight.shape.size() == 2 || (count - 1) * step >= size)) {
    return Unsupported(fmt::format("a dimension of {} can't be split into {} equal parts", size, count));
  }
  const uint64_t begin = index * step;
  return SliceWeight(weight, dim, begin, std::min(step, size - begin));
}

namespace {

Status CheckConcatenable(const std::vector<LogicalWeight>& weights, size_t dim) {
  if (auto status = CheckAlike(weights, "Concatenate"); !status) return status;
  const LogicalWeight& first = weights[0];
  if (dim >= first.shape.size())
    return Unsupported(fmt::format("Concatenate along dimension {} of a weight with {}", dim, first.shape.size()));
  for (const LogicalWeight& weight : weights) {
    std::vector<uint64_t> shape = weight.shape;
    if (shape.size() == first.shape.size()) shape[dim] = first.shape[dim];
    if (shape != first.shape)
      return Unsupported(fmt::format("Concatenate of weights of shapes [{}] and [{}]", fmt::join(first.shape, ", "),
                                     fmt::join(weight.shape, ", ")));
  }
  return {};
}

// Part `p` of all weights one after the other; a partial block may only be the last one.
Result<Array> ConcatenatePart(const std::vector<LogicalWeight>& weights, size_t p, size_t dim) {
  const Axis axis = *weights[0].parts[p].axes[dim];
  if (!axis.whole.empty()) return Unsupported(fmt::format("{}: {}", PartName(weights[0].parts[p]), axis.whole));
  std::vector<Array> arrays;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (i + 1 < weights.size() && weights[i].shape[dim] % axis.granularity != 0) {
      return Unsupported(fmt::format("a part of {} rows ends inside a block of {} of {}", weights[i].shape[dim],
                                     axis.granularity, PartName(weights[i].parts[p])));
    }
    arrays.push_back(weights[i].parts[p].array);
  }
  return Concatenate(arrays, axis.dim);
}

}  // namespace

Result<LogicalWeight> ConcatenateWeights(const std::vector<LogicalWeight>& weights, size_t dim, SharedScales* shared) {
  if (auto status = CheckConcatenable(weights, dim); !status) return status.errors();
  if (auto status = CheckBias(weights[0], dim); !status && weights.size() > 1) return status.errors();
  LogicalWeight out = weights[0];
  for (size_t i = 1; i < weights.size(); ++i) out.shape[dim] += weights[i].shape[dim];
  for (size_t p = 0; p < out.parts.size(); ++p) {
    if (!out.parts[p].axes[dim]) continue;
    auto joined = ConcatenatePart(weights, p, dim);
    if (!joined) return joined.errors();
    out.parts[p].array = std::move(*joined);
  }
  for (size_t p = 0; p < out.parts.size(); ++p) {
    if (out.parts[p].axes[dim] || out.parts[p].restate) continue;
    if (auto status = ShareScale(weights, p, dim, shared, &out); !status) return status.errors();
  }
  return out;
}

Result<LogicalWeight> Unstack(const LogicalWeight& weight, size_t dim, uint64_t index) {
  if (auto status = CheckKnown(weight, "SplitModulelist"); !status) return status.errors();
  LogicalWeight out{weight.format, weight.shape, {}};
  out.shape.erase(out.shape.begin() + static_cast<std::ptrdiff_t>(dim));
  for (const StoredPart& part : weight.parts) {
    StoredPart entry = part;
    if (const auto& axis = part.axes[dim]) {
      if (axis->granularity != 1 || !axis->whole.empty())
        return Unsupported(fmt::format("{} shares one element between several experts", PartName(part)));
      if (axis->multiple != 1) {  // one row of values for all experts: a range of it, which keeps the dimension
        entry.array = Slice(part.array, axis->dim, index * axis->multiple, axis->multiple);
        entry.axes.erase(entry.axes.begin() + static_cast<std::ptrdiff_t>(dim));
        out.parts.push_back(std::move(entry));
        continue;
      }
      entry.array = Select(part.array, axis->dim, index);
    }
    DropLogicalDim(&entry, dim);
    out.parts.push_back(std::move(entry));
  }
  return out;
}

Result<LogicalWeight> StackWeights(const std::vector<LogicalWeight>& weights, size_t dim) {
  if (auto status = CheckAlike(weights, "MergeModulelist"); !status) return status.errors();
  const LogicalWeight& first = weights[0];
  if (dim > first.shape.size())
    return Unsupported(fmt::format("no new dimension {} can be put into a weight with {}", dim, first.shape.size()));
  for (const LogicalWeight& weight : weights) {
    if (weight.shape != first.shape)
      return Unsupported(fmt::format("MergeModulelist of weights of shapes [{}] and [{}]", fmt::join(first.shape, ", "),
                                     fmt::join(weight.shape, ", ")));
  }
  // Stored flattened, experts would have to follow each other in one row and not stand side by side.
  if (first.format == FormatId::kBitsAndBytes4Bit)
    return Unsupported("MergeModulelist of weights that are stored as one row of values");
  LogicalWeight out{first.format, first.shape, {}};
  out.shape.insert(out.shape.begin() + static_cast<std::ptrdiff_t>(dim), weights.size());
  for (size_t p = 0; p < first.parts.size(); ++p) {
    StoredPart stacked = first.parts[p];
    std::vector<Array> arrays;
    for (const LogicalWeight& weight : weights) {
      if (weight.parts[p].array.shape != first.parts[p].array.shape)
        return Unsupported(
            fmt::format("MergeModulelist of weights whose {} differ in shape", PartName(first.parts[p])));
      arrays.push_back(weight.parts[p].array);
    }
    // The new stored dimension goes where the logical one goes; a tensor of lower rank gets it in front.
    size_t stored_dim = std::min(dim, arrays[0].shape.size());
    for (auto& axis : stacked.axes) {
      if (axis && axis->dim >= stored_dim) ++axis->dim;
    }
    stacked.axes.insert(stacked.axes.begin() + static_cast<std::ptrdiff_t>(dim), Axis{stored_dim, 1});
    stacked.array = Stack(arrays, stored_dim);
    out.parts.push_back(std::move(stacked));
  }
  return out;
}

}  // namespace quantport
