// NVFP4 as ModelOpt exports it (https://github.com/NVIDIA/Model-Optimizer, torch/export):
//   weight           U8       [out, in/2]   E2M1 values, input 2k in the low half of a byte
//   weight_scale     F8_E4M3  [out, in/16]  (in/32 in W4A8_NVFP4_FP8)
//   weight_scale_2   F32      []
//   input_scale      F32      []            absent in W4A16_NVFP4
//   pre_quant_scale  model's  [in]          NVFP4_AWQ, where it was not folded away
//   svdquant_lora_a  model's  [r, in], svdquant_lora_b [out, r]   NVFP4_SVD
// Batched experts are stored transposed, [E, in/2, out] and [E, in/16, out].
#include <array>

#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kNvfp4, "NVFP4"},
                                   {FormatId::kNvfp4WeightOnly, "W4A16_NVFP4"},
                                   {FormatId::kNvfp4Awq, "NVFP4_AWQ"},
                                   {FormatId::kNvfp4Svd, "NVFP4_SVD"},
                                   {FormatId::kW4A8Nvfp4Fp8, "W4A8_NVFP4_FP8"}};

// The factors' names: promoted by the diffusers exporter, and as they stand in the quantizer.
constexpr std::array<std::string_view, 2> kLoraA = {"svdquant_lora_a", "weight_quantizer._svdquant_lora_a"};
constexpr std::array<std::string_view, 2> kLoraB = {"svdquant_lora_b", "weight_quantizer._svdquant_lora_b"};

// The block along the packed dimension `dim`, or 0 where the shapes do not fit it.
uint64_t FitPacked(const Candidate& candidate, StoredPart* scale, size_t dim) {
  Shape& logical = candidate.weight->shape;
  logical = candidate.stored();
  logical[dim] *= 2;
  Axes axes = SameDims(logical.size());
  axes[dim]->granularity = 2;
  for (const uint64_t block : {uint64_t{16}, uint64_t{32}}) {
    if (logical[dim] % block == 0 && FitGroups(scale, logical, dim, block) && Fit(&candidate.value(), logical, axes))
      return block;
  }
  return 0;
}

bool FitFactors(const Candidate& candidate) {
  const size_t out = candidate.weight->shape.size() - 2;
  for (size_t i = 0; i < kLoraA.size(); ++i) {
    Axes a(out + 2);
    Axes b(out + 2);
    a[out + 1] = Axis{1, 1};
    b[out] = Axis{0, 1};
    if (StoredPart* part = candidate.Find(kLoraA[i]);
        part != nullptr && !FitLoosely(part, candidate.weight->shape, std::move(a)))
      return false;
    if (StoredPart* part = candidate.Find(kLoraB[i]);
        part != nullptr && !FitLoosely(part, candidate.weight->shape, std::move(b)))
      return false;
  }
  return true;
}

FormatId Variant(const Candidate& candidate, uint64_t block) {
  if (candidate.Find(kLoraA[0]) != nullptr || candidate.Find(kLoraA[1]) != nullptr) return FormatId::kNvfp4Svd;
  if (candidate.Find("pre_quant_scale") != nullptr) return FormatId::kNvfp4Awq;
  if (candidate.Find("input_scale") == nullptr)
    return candidate.options.algorithm == "W4A8_NVFP4_FP8" ? FormatId::kW4A8Nvfp4Fp8 : FormatId::kNvfp4WeightOnly;
  return block == 32 ? FormatId::kW4A8Nvfp4Fp8 : FormatId::kNvfp4;
}

bool Recognize(const Candidate& candidate) {
  StoredPart* scale = candidate.Find("weight_scale");
  const size_t rank = candidate.stored().size();
  if (!candidate.HasOwnName() || candidate.dtype() != DType::kU8 || scale == nullptr ||
      scale->array.dtype != DType::kF8E4M3 || candidate.Find("weight_scale_2") == nullptr || rank < 2)
    return false;
  size_t inputs = rank - 1;
  uint64_t block = FitPacked(candidate, scale, inputs);
  if (block == 0) block = FitPacked(candidate, scale, --inputs);
  if (block == 0 || !FitFactors(candidate)) return false;
  StoredPart* smoothing = candidate.Find("pre_quant_scale");
  if (smoothing != nullptr && !FitInputs(smoothing, candidate.weight->shape, inputs)) return false;
  candidate.weight->format = Variant(candidate, block);
  return true;
}

std::optional<std::string> Missing(const LogicalWeight& weight) {
  const StoredPart* block = weight.Find("weight_scale");
  const bool scale = block != nullptr || weight.Find("weight_scale_inv") != nullptr;
  const bool scale_2 = weight.Find("weight_scale_2") != nullptr;
  if (scale_2 && !scale) return "weight_scale is missing beside weight_scale_2";
  const bool own_name = weight.parts[0].leaf == "weight" || weight.parts[0].leaf.empty();
  if (own_name && weight.parts[0].array.dtype == DType::kU8 && block != nullptr && !scale_2 &&
      block->array.dtype == DType::kF8E4M3)
    return "weight_scale_2 is missing: NVFP4 block scales are relative to it";
  return std::nullopt;
}

}  // namespace

const Format kNvfp4Format = {kLabels, Recognize, Missing};

}  // namespace quantport
