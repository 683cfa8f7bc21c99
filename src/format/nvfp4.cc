// NVFP4 as ModelOpt exports it (https://github.com/NVIDIA/Model-Optimizer, torch/export), and AMD Quark:
//   weight           U8       [out, in/2]   E2M1 values, input 2k in the low half of a byte
//   weight_scale     F8_E4M3  [out, in/16]  (in/32 in W4A8_NVFP4_FP8)
//   weight_scale_2   F32      []
//   input_scale      F32      []            absent in W4A16_NVFP4; Quark, whose activations have two stages, calls it
//                                           input_scale_2
//   pre_quant_scale  model's  [in]          NVFP4_AWQ, where it was not folded away
//   svdquant_lora_a  model's  [r, in], svdquant_lora_b [out, r]   NVFP4_SVD
// Batched experts are stored transposed, [E, in/2, out] and [E, in/16, out]; a linear by itself never is.
#include <fmt/format.h>

#include <array>

#include "format/coded_weight.h"
#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kNvfp4, "NVFP4", 2688},
                               {FormatId::kNvfp4WeightOnly, "W4A16_NVFP4"},
                               {FormatId::kNvfp4Awq, "NVFP4_AWQ", 2688},
                               {FormatId::kNvfp4Svd, "NVFP4_SVD", 2688},
                               {FormatId::kW4A8Nvfp4Fp8, "W4A8_NVFP4_FP8", 448}};

constexpr std::string_view kInputScale2 = "input_scale_2";

// The factors' names: promoted by the diffusers exporter, and as they stand in the quantizer.
constexpr std::array<std::string_view, 2> kLoraA = {"svdquant_lora_a", "weight_quantizer._svdquant_lora_a"};
constexpr std::array<std::string_view, 2> kLoraB = {"svdquant_lora_b", "weight_quantizer._svdquant_lora_b"};

// Either name may stand there; that one of them does is what makes the format.
void AddFactors(const Shape& logical, uint64_t rank, size_t inputs, std::vector<Part>* parts) {
  const size_t outputs = logical.size() - 2;
  const auto factor = [&](Role role, std::string_view leaf, size_t carried, size_t dim) {
    Axes axes(logical.size());
    axes[carried] = Axis{dim, 1};
    Form form = FormOf(logical, 2, std::move(axes));
    form.shape[1 - dim] = rank;
    parts->push_back({role, leaf, {DType::kBF16, DType::kF16, DType::kF32}, {std::move(form)}, false});
  };
  for (size_t i = 0; i < kLoraA.size(); ++i) {
    factor(Role::kLowRankIn, kLoraA[i], inputs, 1);
    factor(Role::kLowRankOut, kLoraB[i], outputs, 0);
  }
}

std::vector<Part> NvParts(const Proposal& proposal) {
  const Shape& logical = proposal.shape;
  const FormatId id = proposal.format;
  const size_t dim = logical.size() - (proposal.variant.inputs_first ? 2 : 1);
  std::vector<Part> parts;
  parts.reserve(10);
  parts.push_back({Role::kValues, leaf::kWeight, {DType::kU8}, {PackedForm(logical, Axis{dim, 2}, dim)}});
  parts.push_back(
      {Role::kScale, leaf::kWeightScale, {DType::kF8E4M3}, GroupForms(logical, dim, proposal.variant.group)});
  parts.push_back(ScalarPart(Role::kGlobalScale, leaf::kWeightScale2, {DType::kF32}, logical, true));
  if (id != FormatId::kNvfp4WeightOnly) {
    parts.push_back(ScalarPart(Role::kInputScale, leaf::kInputScale, kNumbers, logical, false));
    parts.push_back(ScalarPart(Role::kInputGlobalScale, kInputScale2, kNumbers, logical, false));
  }
  parts.push_back(ScalarPart(Role::kOutputScale, leaf::kOutputScale, kNumbers, logical, false));
  if (id == FormatId::kNvfp4Awq || id == FormatId::kNvfp4Svd)
    parts.push_back(SmoothingPart(logical, dim, id == FormatId::kNvfp4Awq));
  if (id == FormatId::kNvfp4Svd && !proposal.variant.inputs_first)
    AddFactors(logical, proposal.variant.factors, dim, &parts);
  return parts;
}

// By the first factor; the second must have the same.
uint64_t RankOfFactors(const StoredModule& module) {
  for (const std::string_view leaf : kLoraA) {
    if (const StoredLeaf* factor = module.Find(leaf); factor != nullptr && !factor->shape.empty())
      return factor->shape[0];
  }
  return 0;
}

FormatId IdOf(const StoredModule& module, uint64_t block) {
  if (module.Has(kLoraA[0]) || module.Has(kLoraA[1])) return FormatId::kNvfp4Svd;
  if (module.Has(leaf::kPreQuantScale)) return FormatId::kNvfp4Awq;
  if (!module.Has(leaf::kInputScale) && !module.Has(kInputScale2))
    return module.options.algorithm == "W4A8_NVFP4_FP8" ? FormatId::kW4A8Nvfp4Fp8 : FormatId::kNvfp4WeightOnly;
  return block == 32 ? FormatId::kW4A8Nvfp4Fp8 : FormatId::kNvfp4;
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const size_t rank = module.value().shape.size();
  if (!module.HasOwnName() || module.value().dtype != DType::kU8 || rank < 2 || !module.Has(leaf::kWeightScale) ||
      !module.Has(leaf::kWeightScale2))
    return;
  for (const bool inputs_first : {false, true}) {
    if (inputs_first && rank < 3) continue;
    const size_t dim = rank - (inputs_first ? 2 : 1);
    for (const uint64_t block : {uint64_t{16}, uint64_t{32}}) {
      Proposal proposal{IdOf(module, block), {module.value().shape.begin(), module.value().shape.end()}, {}};
      proposal.shape[dim] *= 2;
      proposal.variant.granularity = Granularity::kGroups;
      proposal.variant.group = block;
      proposal.variant.factors = RankOfFactors(module);
      proposal.variant.inputs_first = inputs_first;
      if (proposal.shape[dim] % block != 0)
        proposal.misfit = fmt::format("{} inputs are no multiple of {}", proposal.shape[dim], block);
      proposals->push_back(std::move(proposal));
    }
  }
}

std::optional<std::string> Missing(const StoredModule& module) {
  const StoredLeaf* block = module.Find(leaf::kWeightScale);
  const bool scale_2 = module.Has(leaf::kWeightScale2);
  if (scale_2 && block == nullptr && !module.Has(leaf::kWeightScaleInv))
    return "weight_scale is missing beside weight_scale_2";
  if (module.HasOwnName() && module.value().dtype == DType::kU8 && block != nullptr && !scale_2 &&
      block->dtype == DType::kF8E4M3)
    return "weight_scale_2 is missing: NVFP4 block scales are relative to it";
  return std::nullopt;
}

// ModelOpt quantizes batched experts in the order [experts, out, in] and stores the transposed view, so that blocks and
// the two values of a byte run along the inputs; but W4A8_NVFP4_FP8 as it stands, along the outputs.
std::optional<std::string> Written(const Encoding& encoding, const Shape& shape, Variant* variant) {
  const bool w4a8 = encoding.format == FormatId::kW4A8Nvfp4Fp8;
  if (!w4a8 && encoding.format != FormatId::kNvfp4 && encoding.format != FormatId::kNvfp4WeightOnly)
    return std::string(FormatName(encoding.format));
  if (encoding.block != 16 && encoding.block != 32) return fmt::format("NVFP4 in blocks of {}", encoding.block);
  variant->granularity = Granularity::kGroups;
  variant->group = encoding.block;
  variant->inputs_first = shape.size() == 3 && !w4a8;
  return std::nullopt;
}

}  // namespace

const Family kNvfp4Family = {kFormats, NvParts, Propose, Missing, Written};

}  // namespace quantport
