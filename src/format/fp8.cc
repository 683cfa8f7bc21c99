// FP8 values with scales to multiply by. ModelOpt (FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO), compressed-tensors
// (float-quantized, naive-quantized), AMD Quark, and DeepSeek's fine-grained FP8 as transformers saves it:
//   weight            F8_E4M3  [out, in]
//   weight_scale      F32, BF16  [] or [1]; [out] or [out, 1]; [cdiv(out,128), cdiv(in,128)], also [.., 1, .., 1];
//                     [out, in/group]
//   weight_scale_inv  F32, F8_E8M0  tiles or []; multiplied as well, whatever its name says
//   input_scale, activation_scale  F32  [] or [1]
// Stacked experts are [E, out, in]; gate and up that were quantized apart have tile grids of their own, see AddHalves.
#include <algorithm>

#include "base/checked.h"
#include "base/text.h"
#include "format/coded_weight.h"
#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kFp8PerTensor, "FP8", 448},
                               {FormatId::kFp8PerChannel, "FP8_PER_CHANNEL_PER_TOKEN"},
                               {FormatId::kFp8Block, "FP8_BLOCK"},
                               {FormatId::kFp8Group, "FP8_GROUP"}};

constexpr DTypes kScales = {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E8M0};

std::vector<Form> Fp8ScaleForms(const Shape& logical, const Variant& variant) {
  switch (variant.granularity) {
    case Granularity::kHalves:
      return {FormOf(logical, 3, {Axis{0, 1}, Axis{1, std::max<uint64_t>(logical[1] / 2, 1)}, std::nullopt})};
    case Granularity::kColumns:
      return {FormOf(logical, 2, {Axis{0, 1}, std::nullopt, Axis{1, 1}}),
              FormOf(logical, 3, {Axis{0, 1}, std::nullopt, Axis{2, 1}})};
    case Granularity::kTiles:
      if (variant.half_tiles) {
        const uint64_t half = std::max<uint64_t>(logical[1] / 2, 1);
        return {
            FormOf(logical, 3, {Axis{0, 1}, Axis{1, half, CeilDiv(half, variant.tile[0])}, Axis{2, variant.tile[1]}})};
      }
      break;
    default:
      break;
  }
  std::vector<Form> forms = ScaleForms(logical, variant);
  // Only ModelOpt, which does not say weight_scale_inv, has its dimensions of 1.
  if (variant.granularity == Granularity::kTiles && variant.scale_inv && forms.size() > 1)
    std::swap(forms[0], forms[1]);
  return forms;
}

std::vector<Part> Fp8Parts(const Proposal& proposal) {
  const Shape& logical = proposal.shape;
  const Variant& variant = proposal.variant;
  std::vector<Part> parts;
  parts.reserve(6);
  parts.push_back({Role::kValues, leaf::kWeight, {DType::kF8E4M3}, {SameForm(logical)}});
  if (variant.granularity == Granularity::kTensor) {
    parts.push_back(ScalarPart(Role::kScale, variant.scale_inv ? leaf::kWeightScaleInv : leaf::kWeightScale, kScales,
                               logical, true));
  } else {
    parts.push_back({Role::kScale, variant.scale_inv ? leaf::kWeightScaleInv : leaf::kWeightScale, kScales,
                     Fp8ScaleForms(logical, variant)});
  }
  AddActivationScales(logical, &parts);
  parts.push_back(ScalarPart(Role::kInputScale, leaf::kActivationScale, kNumbers, logical, false));
  if (!logical.empty()) parts.push_back(SmoothingPart(logical, logical.size() - 1, false));
  return parts;
}

// gate_up_proj is made of two weights that were quantized apart: the tiles of each half start at its own first row,
// and in per-tensor quantization each half has its own scale. What differs from one grid over all comes first.
bool MayBeHalves(const StoredModule& module) {
  const auto& shape = module.value().shape;
  return shape.size() == 3 && shape[1] % 2 == 0 && shape[1] != 0 && module.Has(leaf::kWeightScaleInv) &&
         module.Find(leaf::kWeightScaleInv)->shape.size() == 3 && SplitLeaf(module.key).leaf.starts_with("gate_up");
}

class Proposer {
 public:
  Proposer(const StoredModule& module, std::vector<Proposal>* proposals) : module_(module), proposals_(proposals) {}

  void Run() {
    const auto& shape = module_.value().shape;
    const auto& tile = module_.options.fp8_tile;
    const StoredLeaf* scale = module_.Find(leaf::kWeightScale);
    inv_ = scale == nullptr;
    if (inv_) scale = module_.Find(leaf::kWeightScaleInv);
    if (scale == nullptr) return;
    // A weight within one tile has a single scale as well; only its name or rank tells that it is of tiles.
    const bool by_tile = inv_ || scale->shape.size() == 4;
    if (inv_ && MayBeHalves(module_)) AddHalves(shape[1] / 2, shape[2]);
    if (by_tile) Add(FormatId::kFp8Block, Granularity::kTiles).tile = tile;
    Add(FormatId::kFp8PerTensor, Granularity::kTensor);
    Add(FormatId::kFp8PerChannel, Granularity::kRows);
    if (!by_tile) Add(FormatId::kFp8Block, Granularity::kTiles).tile = tile;
    // Batched experts [E, in, out] with a scale for each column: [E, out]. They are parameters and no modules; a linear
    // with a dimension too many is none of them.
    if (shape.size() == 3 && module_.value().leaf.empty()) Add(FormatId::kFp8PerChannel, Granularity::kColumns);
    const uint64_t groups = scale->shape.size() == shape.size() ? scale->shape.back() : 0;
    // A scale for each value is no layout that anyone writes.
    if (groups == 0 || groups >= shape.back()) return;
    if (const auto group = GroupSize(shape.back(), groups))
      Add(FormatId::kFp8Group, Granularity::kGroups).group = *group;
  }

 private:
  Variant& Add(FormatId format, Granularity granularity) {
    proposals_->push_back({format, {module_.value().shape.begin(), module_.value().shape.end()}, {}});
    Variant& variant = proposals_->back().variant;
    variant.granularity = granularity;
    variant.scale_inv = inv_;
    return variant;
  }

  void AddHalves(uint64_t half, uint64_t inputs) {
    const auto& tile = module_.options.fp8_tile;
    if (half % tile[0] == 0) Add(FormatId::kFp8Block, Granularity::kTiles).tile = tile;
    const bool one_tile = half <= tile[0] && inputs <= tile[1];
    if (!one_tile) Add(FormatId::kFp8PerTensor, Granularity::kHalves);
    Variant& variant = Add(FormatId::kFp8Block, Granularity::kTiles);
    variant.tile = tile;
    variant.half_tiles = true;
  }

  const StoredModule& module_;
  std::vector<Proposal>* proposals_;
  bool inv_ = false;
};

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const bool fp8 = module.value().dtype == DType::kF8E4M3 || module.value().dtype == DType::kF8E5M2;
  if (module.HasOwnName() && fp8 && module.value().shape.size() >= 2) Proposer(module, proposals).Run();
}

std::optional<std::string> Written(const Encoding& encoding, const Shape& shape, Variant* variant) {
  const bool batched = shape.size() == 3;
  switch (encoding.format) {
    case FormatId::kFp8PerTensor:
      variant->granularity = Granularity::kTensor;
      return std::nullopt;
    case FormatId::kFp8PerChannel:
      variant->granularity = Granularity::kRows;
      return batched ? std::optional(OfBatchedExperts(encoding.format)) : std::nullopt;
    case FormatId::kFp8Block: {
      if (batched) return OfBatchedExperts(encoding.format);
      if (encoding.block == 0) return "FP8 tiles of no size";
      variant->tile = {encoding.block, encoding.block};
      // As ModelOpt has it: a single tile of a linear by itself is a scale without dimensions.
      const bool single = CeilDiv(shape[0], encoding.block) == 1 && CeilDiv(shape[1], encoding.block) == 1;
      variant->granularity = single ? Granularity::kTensor : Granularity::kTiles;
      if (single && encoding.search != ScaleSearch::kNone) return "a single tile whose scale is searched for";
      return std::nullopt;
    }
    default:
      return std::string(FormatName(encoding.format));
  }
}

}  // namespace

const Family kFp8Family = {kFormats, Fp8Parts, Propose, nullptr, Written};

}  // namespace quantport
