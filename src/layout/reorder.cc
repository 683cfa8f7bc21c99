#include "layout/reorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/checked.h"
#include "layout/misfits.h"

namespace quantport {
namespace {

Error Unsupported(std::string message) {
  return Error{ErrorKind::kQuantConversionUnsupported, std::move(message), {}, {}, {}};
}

std::string_view PartName(const StoredPart& part) {
  return part.leaf.empty() ? "the value" : std::string_view(part.leaf);
}

Status CheckKnown(const LogicalWeight& weight) {
  if (weight.misfit == nullptr && weight.format != FormatId::kUnrecognized) return {};
  return Unsupported(fmt::format("needs to know how this weight is stored, and {}", MisfitText(weight)));
}

// Every moved row is a block of its own, of some 100 bytes of memory.
constexpr uint64_t kMaxMoved = 1 << 22;

// Stored elements of `dim`, `multiple` of them for each logical one, permuted within stretches.
Array TransposeStored(const Array& array, size_t dim, uint64_t multiple, uint64_t rows, uint64_t columns) {
  // [n] -> [stretch, row, column, element] -> [stretch, column, row, element] -> [n]
  Array out = SplitDim(array, dim, multiple);
  out = SplitDim(out, dim, columns);
  out = SplitDim(out, dim, rows);
  out = SwapDims(out, dim + 1, dim + 2);
  return MergeDims(MergeDims(MergeDims(out, dim), dim), dim);
}

}  // namespace

Result<LogicalWeight> TransposeStretches(const LogicalWeight& weight, size_t dim, uint64_t rows, uint64_t columns) {
  if (auto status = CheckKnown(weight); !status) return status.errors();
  const uint64_t stretch = rows * columns;
  if (dim >= weight.shape.size())
    return Unsupported(fmt::format("dimension {} of a weight with {}", dim, weight.shape.size()));
  if (stretch == 0 || weight.shape[dim] % stretch != 0)
    return Unsupported(
        fmt::format("a dimension of {} does not divide into stretches of {} x {}", weight.shape[dim], rows, columns));
  if (weight.shape[dim] > kMaxMoved)
    return Unsupported(fmt::format("{} rows are more than any weight has", weight.shape[dim]));
  LogicalWeight out = weight;
  for (StoredPart& part : out.parts) {
    const auto& axis = part.axes[dim];
    if (!axis) continue;
    if (!axis->whole.empty()) return Unsupported(fmt::format("{}: {}", PartName(part), axis->whole));
    if (axis->granularity == 1) {
      part.array = TransposeStored(part.array, axis->dim, axis->multiple, rows, columns);
      continue;
    }
    // One block for the whole dimension, or blocks of whole stretches: every element stays with its scale. That holds
    // for scales; packed values themselves would have to be unpacked.
    const bool scale = &part != &out.parts[0] && !axis->packed;
    const bool stays = axis->granularity % stretch == 0 || axis->granularity >= weight.shape[dim];
    if (scale && stays && axis->multiple == 1) continue;
    return Unsupported(
        fmt::format("rows move within stretches of {}, and {} stores one element for {} rows: they would "
                    "have to change blocks",
                    stretch, PartName(part), axis->granularity));
  }
  return out;
}

Result<LogicalWeight> TransposeWeight(const LogicalWeight& weight, size_t a, size_t b) {
  if (auto status = CheckKnown(weight); !status) return status.errors();
  if (std::max(a, b) >= weight.shape.size())
    return Unsupported(fmt::format("dimensions {} and {} of a weight with {}", a, b, weight.shape.size()));
  LogicalWeight out = weight;
  std::swap(out.shape[a], out.shape[b]);
  for (StoredPart& part : out.parts) {
    const auto axis_a = part.axes[a];
    const auto axis_b = part.axes[b];
    if (!axis_a && !axis_b) continue;
    for (const auto& axis : {axis_a, axis_b}) {
      if (axis && !axis->whole.empty()) return Unsupported(fmt::format("{}: {}", PartName(part), axis->whole));
    }
    if (weight.shape.size() == 3 && part.array.shape.size() > 3)
      return Unsupported(
          fmt::format("each row of {} ends in a dimension of blocks, and would not if transposed", PartName(part)));
    const bool same =
        axis_a && axis_b && axis_a->granularity == axis_b->granularity && axis_a->multiple == axis_b->multiple;
    if (!same && weight.shape.size() == 2) {
      return Unsupported(
          fmt::format("{} follows the rows of the weight, and no format stores it along the columns: the "
                      "weight would have to be quantized again",
                      PartName(part)));
    }
    std::swap(part.axes[a], part.axes[b]);
    // A dimension of size 1 that stands for the one left out, as in [E, out, 1], changes places as well.
    const bool aligned = part.array.shape.size() == weight.shape.size() && (!axis_a || axis_a->dim == a) &&
                         (!axis_b || axis_b->dim == b);
    if ((!axis_a || !axis_b) && aligned) {
      part.array = SwapDims(part.array, a, b);
      (axis_a ? part.axes[b]->dim : part.axes[a]->dim) = axis_a ? b : a;
    }
    if (!axis_a || !axis_b) continue;
    part.array = SwapDims(part.array, axis_a->dim, axis_b->dim);
    std::swap(part.axes[a]->dim, part.axes[b]->dim);
  }
  return out;
}

Result<LogicalWeight> FlattenWeight(const LogicalWeight& weight) {
  if (auto status = CheckKnown(weight); !status) return status.errors();
  LogicalWeight out = weight;
  while (out.shape.size() > 2) {
    out.shape[1] *= out.shape[2];
    out.shape.erase(out.shape.begin() + 2);
  }
  for (StoredPart& part : out.parts) {
    const bool has_others =
        std::any_of(part.axes.begin() + 1, part.axes.end(), [](const auto& axis) { return axis.has_value(); });
    if (has_others) {
      const bool dense =
          part.array.shape == weight.shape && std::all_of(part.axes.begin(), part.axes.end(), [](const auto& axis) {
            return axis && axis->granularity == 1 && axis->multiple == 1;
          });
      if (!dense)
        return Unsupported(
            fmt::format("{} is stored in blocks that the flattened weight would cut otherwise", PartName(part)));
      while (part.array.shape.size() > 2) part.array = MergeDims(part.array, 1);
    }
    part.axes.resize(2);
  }
  return out;
}

Result<LogicalWeight> UnflattenWeight(const LogicalWeight& weight, std::span<const uint64_t> sizes) {
  if (auto status = CheckKnown(weight); !status) return status.errors();
  std::optional<uint64_t> product = 1;
  for (const uint64_t size : sizes) product = product ? CheckedMul(*product, size) : std::nullopt;
  if (weight.shape.size() != 2 || weight.shape[1] != product || product == 0)
    return Unsupported(fmt::format("a weight of shape [{}] can't be the convolution [{}, {}]",
                                   fmt::join(weight.shape, ", "), weight.shape.empty() ? 0 : weight.shape[0],
                                   fmt::join(sizes, ", ")));
  LogicalWeight out = weight;
  out.shape.resize(1);
  out.shape.insert(out.shape.end(), sizes.begin(), sizes.end());
  for (StoredPart& part : out.parts) {
    const auto axis = part.axes[1];
    part.axes.resize(out.shape.size());
    if (!axis) continue;
    if (axis->granularity != 1 || axis->multiple != 1 || axis->dim != 1 || part.array.shape.size() != 2)
      return Unsupported(fmt::format("{} is stored in blocks that no convolution's weight can have", PartName(part)));
    uint64_t inner = *product;
    for (size_t i = 0; i < sizes.size(); ++i) {
      inner /= sizes[i];
      if (i + 1 < sizes.size()) part.array = SplitDim(part.array, 1 + i, inner);
      part.axes[1 + i] = Axis{1 + i, 1};
    }
  }
  return out;
}

namespace {

// The one tensor of a weight whose stored elements are its logical ones.
Result<Array> OnlyArray(const LogicalWeight& weight) {
  if (weight.format == FormatId::kPlain && weight.parts.size() == 1) return weight.parts[0].array;
  return Unsupported("a quantized weight has no such form");
}

LogicalWeight WithArray(const LogicalWeight& weight, Array array) {
  LogicalWeight out{weight.format, array.shape, {weight.parts[0]}};
  out.parts[0].axes.clear();
  for (size_t dim = 0; dim < array.shape.size(); ++dim) out.parts[0].axes.push_back(Axis{dim, 1});
  out.parts[0].array = std::move(array);
  return out;
}

}  // namespace

Result<LogicalWeight> MergeLeading(const LogicalWeight& weight) {
  auto array = OnlyArray(weight);
  if (!array) return array.errors();
  if (array->shape.size() < 2) return Unsupported("a weight of one dimension has no two to merge");
  return WithArray(weight, MergeDims(*array, 0));
}

Result<LogicalWeight> SplitLeading(const LogicalWeight& weight, uint64_t inner) {
  auto array = OnlyArray(weight);
  if (!array) return array.errors();
  if (array->shape.empty() || array->shape[0] % inner != 0)
    return Unsupported(
        fmt::format("a weight of shape [{}] has no groups of {} rows", fmt::join(weight.shape, ", "), inner));
  return WithArray(weight, SplitDim(*array, 0, inner));
}

Result<LogicalWeight> PadRows(const LogicalWeight& weight, uint64_t rows) {
  auto array = OnlyArray(weight);
  if (!array) return array.errors();
  if (array->shape.empty() || array->shape[0] > rows)
    return Unsupported(
        fmt::format("a weight of shape [{}] has more than {} rows", fmt::join(weight.shape, ", "), rows));
  if (array->shape[0] == rows) return weight;
  // A vocabulary is padded to a multiple of something small. More than that is a mistake that would fill the disk.
  if (rows / 2 > array->shape[0])
    return Unsupported(fmt::format("{} rows would become {}: more zeros than rows", array->shape[0], rows));
  std::vector<uint64_t> missing = array->shape;
  missing[0] = rows - array->shape[0];
  return WithArray(weight, Concatenate(std::vector{*array, ZeroArray(array->dtype, missing)}, 0));
}

}  // namespace quantport
