#include "layout/layouts.h"

#include <algorithm>
#include <array>
#include <span>

#include "base/checked.h"

namespace quantport {
namespace {

using Axes = std::vector<std::optional<Axis>>;
using Shape = std::vector<uint64_t>;

bool IsFp8Values(DType dtype) { return dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2; }

uint64_t Elements(const Shape& shape) {
  uint64_t count = 1;
  for (const uint64_t size : shape) count *= size;
  return count;
}

// Axes of a tensor whose dimensions are those of the logical weight, with a granularity each.
Axes SameDims(std::span<const uint64_t> granularity) {
  Axes axes;
  for (size_t dim = 0; dim < granularity.size(); ++dim) axes.push_back(Axis{dim, granularity[dim]});
  return axes;
}

// A scale that is one number for the whole weight, or one for each entry of a leading expert dimension:
// [], [1], [E], [E, 1], [E, 1, 1].
std::optional<Axes> ScalarAxes(const Shape& scale, const Shape& logical) {
  Axes axes(logical.size());
  if (logical.size() == 3 && !scale.empty() && scale[0] == logical[0] && Elements(scale) == logical[0]) {
    axes[0] = Axis{0, 1};
    return axes;
  }
  return Elements(scale) == 1 ? std::optional(axes) : std::nullopt;
}

// One scale for each output row: [out], [out, 1], and the same behind an expert dimension.
std::optional<Axes> RowAxes(const Shape& scale, const Shape& logical) {
  if (logical.size() < 2) return std::nullopt;
  const size_t out = logical.size() - 2;
  Shape rows(logical.begin(), logical.end() - 1);
  Shape rows_kept = rows;
  rows_kept.push_back(1);
  if (scale != rows && scale != rows_kept) return std::nullopt;
  Axes axes(logical.size());
  for (size_t dim = 0; dim <= out; ++dim) axes[dim] = Axis{dim, 1};
  return axes;
}

// One scale for each tile of block x block: [.., cdiv(out), cdiv(in)], or ModelOpt's [cdiv(out), 1, cdiv(in), 1].
std::optional<Axes> TileAxes(const Shape& scale, const Shape& logical, uint64_t block) {
  if (logical.size() < 2) return std::nullopt;
  Shape tiles = logical;
  const size_t out = logical.size() - 2;
  tiles[out] = CeilDiv(logical[out], block);
  tiles[out + 1] = CeilDiv(logical[out + 1], block);
  if (scale == tiles) {
    std::vector<uint64_t> granularity(logical.size(), 1);
    granularity[out] = granularity[out + 1] = block;
    return SameDims(granularity);
  }
  if (logical.size() == 2 && scale == Shape{tiles[0], 1, tiles[1], 1}) return Axes{Axis{0, block}, Axis{2, block}};
  return std::nullopt;
}

// Finds the packed dimension of NVFP4: the weight holds 2 values a byte along it, the scale one for 16 (32 in
// W4A8_NVFP4_FP8). ModelOpt's batched experts pack along the last but one, [E, in/2, out].
struct PackedDims {
  size_t dim;
  uint64_t block;
};
std::optional<PackedDims> FindPackedDim(const Shape& weight, const Shape& scale) {
  if (weight.size() != scale.size() || weight.size() < 2) return std::nullopt;
  for (const size_t dim : {weight.size() - 1, weight.size() - 2}) {
    for (const uint64_t block : {uint64_t{16}, uint64_t{32}}) {
      Shape expected = weight;
      if (weight[dim] * 2 % block != 0) continue;
      expected[dim] = weight[dim] * 2 / block;
      if (scale == expected) return PackedDims{dim, block};
    }
  }
  return std::nullopt;
}

// Fills the axes of the parts that every layout treats alike. False where a part fits none.
bool FillSharedParts(LogicalWeight* weight) {
  for (StoredPart& part : weight->parts) {
    if (!part.axes.empty() || weight->shape.empty()) continue;
    const bool scalar = part.leaf == "input_scale" || part.leaf == "weight_scale_2";
    if (!scalar) return false;
    auto axes = ScalarAxes(part.array.shape, weight->shape);
    if (!axes) return false;
    part.axes = std::move(*axes);
  }
  return true;
}

StoredPart* FindPart(LogicalWeight* weight, std::string_view leaf) {
  for (StoredPart& part : weight->parts) {
    if (part.leaf == leaf) return &part;
  }
  return nullptr;
}

bool TryNvfp4(LogicalWeight* weight) {
  StoredPart& value = weight->parts[0];
  StoredPart* scale = FindPart(weight, "weight_scale");
  if (value.array.dtype != DType::kU8 || scale == nullptr || scale->array.dtype != DType::kF8E4M3 ||
      weight->Find("weight_scale_2") == nullptr)
    return false;
  const auto packed = FindPackedDim(value.array.shape, scale->array.shape);
  if (!packed) return false;
  weight->shape = value.array.shape;
  weight->shape[packed->dim] *= 2;
  std::vector<uint64_t> granularity(weight->shape.size(), 1);
  granularity[packed->dim] = 2;
  value.axes = SameDims(granularity);
  granularity[packed->dim] = packed->block;
  scale->axes = SameDims(granularity);
  weight->layout = weight->Find("input_scale") != nullptr ? Layout::kNvfp4 : Layout::kNvfp4WeightOnly;
  return FillSharedParts(weight);
}

bool TryFp8(LogicalWeight* weight, uint64_t block_size) {
  StoredPart& value = weight->parts[0];
  if (!IsFp8Values(value.array.dtype)) return false;
  StoredPart* scale = FindPart(weight, "weight_scale");
  if (scale == nullptr) scale = FindPart(weight, "weight_scale_inv");
  if (scale == nullptr) return false;
  weight->shape = value.array.shape;
  value.axes = SameDims(std::vector<uint64_t>(weight->shape.size(), 1));
  const Shape& scales = scale->array.shape;
  // A weight within one tile has a single scale as well; only its name or rank tells that it is of tiles.
  const bool by_tile = scale->leaf == "weight_scale_inv" || scales.size() == 4;
  std::optional<Axes> axes;
  if (by_tile && (axes = TileAxes(scales, weight->shape, block_size))) {
    weight->layout = Layout::kFp8Block;
  } else if ((axes = ScalarAxes(scales, weight->shape))) {
    weight->layout = Layout::kFp8PerTensor;
  } else if ((axes = RowAxes(scales, weight->shape))) {
    weight->layout = Layout::kFp8PerChannel;
  } else if ((axes = TileAxes(scales, weight->shape, block_size))) {
    weight->layout = Layout::kFp8Block;
  } else {
    return false;
  }
  scale->axes = std::move(*axes);
  return FillSharedParts(weight);
}

bool TryPlain(LogicalWeight* weight) {
  static constexpr std::array<std::string_view, 2> kHarmless = {"input_scale", "output_scale"};
  for (size_t i = 1; i < weight->parts.size(); ++i) {
    if (std::find(kHarmless.begin(), kHarmless.end(), weight->parts[i].leaf) == kHarmless.end()) return false;
  }
  if (weight->parts[0].leaf != "weight" && !weight->parts[0].leaf.empty()) return false;
  weight->shape = weight->parts[0].array.shape;
  weight->parts[0].axes = SameDims(std::vector<uint64_t>(weight->shape.size(), 1));
  weight->layout = Layout::kPlain;
  return FillSharedParts(weight);
}

}  // namespace

void FillLayout(LogicalWeight* weight, uint64_t fp8_block_size) {
  if (TryPlain(weight) || TryNvfp4(weight) || TryFp8(weight, fp8_block_size)) return;
  weight->layout = Layout::kOther;
  weight->shape = weight->parts[0].array.shape;
  for (StoredPart& part : weight->parts) part.axes.assign(weight->shape.size(), std::nullopt);
}

void FillPlainLayout(LogicalWeight* weight) {
  weight->layout = Layout::kPlain;
  weight->shape = weight->parts[0].array.shape;
  weight->parts[0].axes = SameDims(std::vector<uint64_t>(weight->shape.size(), 1));
}

std::optional<std::string> MissingCompanion(const LogicalWeight& weight, bool quantized) {
  const StoredPart& value = weight.parts[0];
  // Formats with names of their own bring their own rules.
  if (value.leaf != "weight" && !value.leaf.empty()) return std::nullopt;
  const bool scale = weight.Find("weight_scale") != nullptr || weight.Find("weight_scale_inv") != nullptr;
  const bool scale_2 = weight.Find("weight_scale_2") != nullptr;
  if (scale_2 && !scale) return "weight_scale is missing beside weight_scale_2";
  if (value.array.dtype == DType::kU8 && scale && !scale_2) {
    const StoredPart* block = weight.Find("weight_scale");
    if (block != nullptr && block->array.dtype == DType::kF8E4M3)
      return "weight_scale_2 is missing: NVFP4 block scales are relative to it";
  }
  if (scale || weight.parts.size() > 2 || value.array.shape.size() < 2) return std::nullopt;
  const bool input_only = weight.parts.size() == 2 && weight.parts[1].leaf == "input_scale";
  const bool packed = value.array.dtype == DType::kU8 || IsFp8Values(value.array.dtype);
  if (packed && (input_only || (quantized && weight.parts.size() == 1)))
    return "weight_scale is missing: the weight is quantized";
  return std::nullopt;
}

}  // namespace quantport
