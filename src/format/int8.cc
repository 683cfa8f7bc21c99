// INT8 values with scales:
//   weight            I8   [out, in]
//   weight_scale      F32  [out]                 ModelOpt; with input_scale (W8A8_SQ_PER_CHANNEL) or without (W8A16)
//                     any  [], [1], [out, 1] or [out, in/group]   compressed-tensors, AMD Quark
//   weight_zero_point I8   as weight_scale       asymmetric
//   pre_quant_scale   model's [in]               SmoothQuant
//   input_scale, input_zero_point  [] or [1]
#include <algorithm>

#include "format/coded_weight.h"
#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kInt8, "W8A16"},
                               {FormatId::kInt8SmoothQuant, "W8A8_SQ_PER_CHANNEL", 127},
                               {FormatId::kIntQuantized, "int-quantized"}};

std::vector<Part> Int8Parts(const Proposal& proposal) {
  const Shape& logical = proposal.shape;
  std::vector<Part> parts;
  parts.reserve(7);
  parts.push_back({Role::kValues, leaf::kWeight, {DType::kI8}, {SameForm(logical)}});
  parts.push_back({Role::kScale, leaf::kWeightScale, kNumbers, ScaleForms(logical, proposal.variant)});
  if (proposal.format == FormatId::kIntQuantized) {
    parts.push_back(
        {Role::kZeroPoint, leaf::kWeightZeroPoint, {DType::kI8}, ScaleForms(logical, proposal.variant), false});
    parts.push_back(
        ScalarPart(Role::kInputZeroPoint, leaf::kInputZeroPoint, {DType::kI8, DType::kI32}, logical, false));
  }
  AddActivationScales(logical, &parts);
  parts.push_back(SmoothingPart(logical, logical.size() - 1, false));
  return parts;
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const StoredLeaf& value = module.value();
  const StoredLeaf* scale = module.Find(leaf::kWeightScale);
  const size_t rank = value.shape.size();
  if (!module.HasOwnName() || value.dtype != DType::kI8 || scale == nullptr || rank < 2) return;
  const auto add = [&](FormatId id, Granularity granularity, uint64_t group) {
    Proposal proposal{id, {value.shape.begin(), value.shape.end()}, {}};
    proposal.variant.granularity = granularity;
    proposal.variant.group = group;
    proposal.variant.bits = 8;
    proposals->push_back(std::move(proposal));
  };
  // One scale of shape [1] is one for all rows, and no list of rows' scales unless there is one row.
  if (value.shape[rank - 2] != 1) add(FormatId::kIntQuantized, Granularity::kTensor, 0);
  const bool modelopt = scale->shape.size() + 1 == rank && !module.Has(leaf::kWeightZeroPoint);
  const bool static_inputs = module.Has(leaf::kInputScale) || module.Has(leaf::kPreQuantScale);
  add(!modelopt       ? FormatId::kIntQuantized
      : static_inputs ? FormatId::kInt8SmoothQuant
                      : FormatId::kInt8,
      Granularity::kRows, 0);
  if (value.shape[rank - 2] == 1) add(FormatId::kIntQuantized, Granularity::kTensor, 0);
  if (scale->shape.size() != rank) return;
  if (const auto group = GroupSize(value.shape.back(), scale->shape.back()))
    add(FormatId::kIntQuantized, Granularity::kGroups, *group);
}

std::optional<std::string> Written(const Encoding& encoding, const Shape& shape, Variant* variant) {
  if (encoding.format == FormatId::kIntQuantized) return std::string(FormatName(encoding.format));
  variant->granularity = Granularity::kRows;
  variant->bits = 8;
  return shape.size() == 3 ? std::optional(OfBatchedExperts(encoding.format)) : std::nullopt;
}

}  // namespace

const Family kInt8Family = {kFormats, Int8Parts, Propose, nullptr, Written};

}  // namespace quantport
