// FP4 experts of DeepSeek models, as transformers' fine-grained FP8 keeps them beside FP8 linears:
//   weight            I8       [out, in/2]   E2M1 values, input 2k in the low half of a byte
//   weight_scale_inv  F8_E8M0 or F32  [out, in/32]
#include <fmt/format.h>

#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kFp4Block, "FP4_BLOCK"}};
constexpr uint64_t kBlock = 32;

std::vector<Part> Fp4Parts(const Proposal& proposal) {
  const Shape& logical = proposal.shape;
  const size_t dim = logical.size() - 1;
  std::vector<Part> parts;
  parts.push_back({Role::kValues, leaf::kWeight, {DType::kI8}, {PackedForm(logical, Axis{dim, 2}, dim)}});
  parts.push_back({Role::kScale,
                   leaf::kWeightScaleInv,
                   {DType::kF8E8M0, DType::kU8, DType::kF32},
                   GroupForms(logical, dim, kBlock)});
  AddActivationScales(logical, &parts);
  parts.push_back(ScalarPart(Role::kInputScale, leaf::kActivationScale, kNumbers, logical, false));
  return parts;
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const StoredLeaf& value = module.value();
  if (!module.HasOwnName() || value.dtype != DType::kI8 || value.shape.size() < 2 || !module.Has(leaf::kWeightScaleInv))
    return;
  Proposal proposal{FormatId::kFp4Block, {value.shape.begin(), value.shape.end()}, {}};
  proposal.shape.back() *= 2;
  proposal.variant.granularity = Granularity::kGroups;
  proposal.variant.group = kBlock;
  proposal.variant.scale_inv = true;
  if (proposal.shape.back() % kBlock != 0)
    proposal.misfit = fmt::format("{} inputs are no multiple of {}", proposal.shape.back(), kBlock);
  proposals->push_back(std::move(proposal));
}

}  // namespace

const Family kFp4BlockFamily = {kFormats, Fp4Parts, Propose};

}  // namespace quantport
