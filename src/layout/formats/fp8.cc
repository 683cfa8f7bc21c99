// FP8 values with scales to multiply by. ModelOpt (FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO), compressed-tensors
// (float-quantized, naive-quantized), AMD Quark, and DeepSeek's fine-grained FP8 as transformers saves it:
//   weight            F8_E4M3  [out, in]
//   weight_scale      F32, BF16  [] or [1]; [out] or [out, 1]; [cdiv(out,128), cdiv(in,128)], also [.., 1, .., 1];
//                     [out, in/group]
//   weight_scale_inv  F32, F8_E8M0  tiles or []; multiplied as well, whatever its name says
//   input_scale, activation_scale  F32  [] or [1]
// Stacked experts are [E, out, in]; gate and up that were quantized apart have tile grids of their own, see FitHalves.
#include "base/checked.h"
#include "base/text.h"
#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kFp8PerTensor, "FP8"},
                                   {FormatId::kFp8PerChannel, "FP8_PER_CHANNEL_PER_TOKEN"},
                                   {FormatId::kFp8Block, "FP8_BLOCK"},
                                   {FormatId::kFp8Group, "FP8_GROUP"}};

// gate_up_proj is made of two weights that were quantized apart: the tiles of each half start at its own first row,
// and in per-tensor quantization each half has its own scale. The layout, where that differs from one grid over all.
std::optional<FormatId> FitHalves(const Candidate& candidate, StoredPart* scale) {
  const Shape& logical = candidate.weight->shape;
  const Shape& scales = scale->array.shape;
  const auto& tile = candidate.options.fp8_tile;
  if (logical.size() != 3 || scales.size() != 3 || scale->leaf != "weight_scale_inv" || logical[1] % 2 != 0 ||
      logical[1] == 0 || !SplitLeaf(candidate.key).leaf.starts_with("gate_up"))
    return std::nullopt;
  const uint64_t half = logical[1] / 2;
  if (half % tile[0] == 0 && FitTiles(scale, logical, tile)) return FormatId::kFp8Block;
  const bool one_tile = half <= tile[0] && logical[2] <= tile[1];
  if (!one_tile && Fit(scale, logical, {Axis{0, 1}, Axis{1, half}, std::nullopt})) return FormatId::kFp8PerTensor;
  if (Fit(scale, logical, {Axis{0, 1}, Axis{1, half, CeilDiv(half, tile[0])}, Axis{2, tile[1]}}))
    return FormatId::kFp8Block;
  return std::nullopt;
}

// What the scale's shape says. A weight within one tile has a single scale as well; only its name or rank tells that
// it is of tiles.
std::optional<FormatId> FitScale(const Candidate& candidate, StoredPart* scale) {
  const Shape& logical = candidate.weight->shape;
  const auto& tile = candidate.options.fp8_tile;
  const bool by_tile = scale->leaf == "weight_scale_inv" || scale->array.shape.size() == 4;
  if (const auto halves = FitHalves(candidate, scale)) return halves;
  if (by_tile && FitTiles(scale, logical, tile)) return FormatId::kFp8Block;
  if (FitScalar(scale, logical)) return FormatId::kFp8PerTensor;
  if (FitRows(scale, logical)) return FormatId::kFp8PerChannel;
  if (FitTiles(scale, logical, tile)) return FormatId::kFp8Block;
  // Batched experts [E, in, out] with a scale for each column: [E, out].
  if (logical.size() == 3 && Fit(scale, logical, {Axis{0, 1}, std::nullopt, Axis{scale->array.shape.size() - 1, 1}}))
    return FormatId::kFp8PerChannel;
  const uint64_t groups = scale->array.shape.size() == logical.size() ? scale->array.shape.back() : 0;
  // A scale for each value is no layout that anyone writes.
  if (groups > 0 && groups < logical.back() && FitAnyGroups(scale, logical, candidate.options))
    return FormatId::kFp8Group;
  return std::nullopt;
}

bool Recognize(const Candidate& candidate) {
  if (!candidate.HasOwnName() || !IsFp8Values(candidate.dtype()) || candidate.stored().empty()) return false;
  StoredPart* scale = candidate.Find("weight_scale");
  if (scale == nullptr) scale = candidate.Find("weight_scale_inv");
  if (scale == nullptr) return false;
  candidate.weight->shape = candidate.stored();
  candidate.value().axes = SameDims(candidate.stored().size());
  const auto layout = FitScale(candidate, scale);
  if (!layout) return false;
  candidate.weight->format = *layout;
  return true;
}

}  // namespace

const Format kFp8Format = {kLabels, Recognize};

}  // namespace quantport
