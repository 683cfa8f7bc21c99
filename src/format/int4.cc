// INT4 as ModelOpt exports it (W4A16_AWQ, which is the name of plain block-wise INT4 too, and W4A8_AWQ):
//   weight           U8   [out/2, in]     two's complement, row 2k in the low half of a byte
//   weight_scale     F32  [out, in/128]
//   pre_quant_scale  model's [in]         where it was not folded away
//   weight_scale_2, input_scale  F32 []   W4A8_AWQ
#include "format/coded_weight.h"
#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kInt4, "W4A16_AWQ", 0, 2}, {FormatId::kW4A8Awq, "W4A8_AWQ", 448, 2}};

std::vector<Part> Int4Parts(const Proposal& proposal) {
  const Shape& logical = proposal.shape;
  const size_t rows = logical.size() - 2;
  std::vector<Part> parts;
  parts.reserve(6);
  parts.push_back({Role::kValues, leaf::kWeight, {DType::kU8}, {PackedForm(logical, Axis{rows, 2}, rows)}});
  parts.push_back(
      {Role::kScale, leaf::kWeightScale, kNumbers, GroupForms(logical, logical.size() - 1, proposal.variant.group)});
  if (proposal.format == FormatId::kW4A8Awq)
    parts.push_back(ScalarPart(Role::kGlobalScale, leaf::kWeightScale2, {DType::kF32}, logical, true));
  AddActivationScales(logical, &parts);
  parts.push_back(SmoothingPart(logical, logical.size() - 1, false));
  return parts;
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const StoredLeaf& value = module.value();
  const StoredLeaf* scale = module.Find(leaf::kWeightScale);
  const size_t rank = value.shape.size();
  if (!module.HasOwnName() || value.dtype != DType::kU8 || scale == nullptr || rank < 2) return;
  Proposal proposal{module.Has(leaf::kWeightScale2) ? FormatId::kW4A8Awq : FormatId::kInt4,
                    {value.shape.begin(), value.shape.end()},
                    {}};
  proposal.shape[rank - 2] *= 2;
  proposal.variant.granularity = Granularity::kGroups;
  proposal.variant.bits = 4;
  // Where the scales can't be of groups, the misfit tells how many one for each row would be.
  const auto group = scale->shape.empty() ? std::nullopt : GroupSize(value.shape.back(), scale->shape.back());
  proposal.variant.group = group && scale->shape.size() == rank ? *group : value.shape.back();
  proposals->push_back(std::move(proposal));
}

std::optional<std::string> Written(const Encoding& encoding, const Shape& shape, Variant* variant) {
  if (encoding.format != FormatId::kInt4) return std::string(FormatName(encoding.format));
  if (encoding.block == 0) return "INT4 without blocks";
  variant->granularity = Granularity::kGroups;
  variant->group = encoding.block;
  variant->bits = 4;
  return shape.size() == 3 ? std::optional(OfBatchedExperts(encoding.format)) : std::nullopt;
}

}  // namespace

const Family kInt4Family = {kFormats, Int4Parts, Propose, nullptr, Written};

}  // namespace quantport
