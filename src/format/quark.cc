// AMD Quark INT4, 8 values in a word of 32 bits (AWQ's order or 0 to 7). Its other formats are stored as FP8, MX and
// INT8 are elsewhere.
//   weight             I32  [in, out/8]   per group; scales and zero points are transposed as well
//   weight_scale       any  [in/g, out]
//   weight_zero_point  I32  [in/g, out/8]
//   weight             I32  [out, in/8]   per channel or per tensor
//   weight_scale       any  [out] or []
//   weight_zero_point  I32  [out/8]
#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kQuarkInt4, "QUARK_INT4"}};
constexpr uint64_t kPerWord = 8;

std::vector<Part> QuarkParts(const Proposal& proposal) {
  const Shape& logical = proposal.shape;
  const Variant& variant = proposal.variant;
  const bool groups = variant.granularity == Granularity::kGroups;
  const Axis group = Axis{0, variant.group};
  std::vector<Form> zeros = {FormOf(logical, 1, {PackedAxis(0, kPerWord), std::nullopt})};
  if (groups) zeros = {FormOf(logical, 2, {PackedAxis(1, kPerWord), group})};
  if (variant.granularity == Granularity::kTensor) zeros = ScalarForms(logical);
  std::vector<Part> parts;
  parts.push_back(
      {Role::kValues,
       leaf::kWeight,
       {DType::kI32},
       {FormOf(logical, 2,
               groups ? Axes{PackedAxis(1, kPerWord), Axis{0, 1}} : Axes{Axis{0, 1}, PackedAxis(1, kPerWord)})}});
  parts.push_back({Role::kScale, leaf::kWeightScale, kNumbers,
                   groups ? std::vector{FormOf(logical, 2, {Axis{1, 1}, group})} : ScaleForms(logical, variant)});
  parts.push_back({Role::kZeroPoint, leaf::kWeightZeroPoint, {DType::kI32}, std::move(zeros), false});
  AddActivationScales(logical, &parts);
  return parts;
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const StoredLeaf* scale = module.Find(leaf::kWeightScale);
  const auto& words = module.value().shape;
  if (!module.HasOwnName() || module.value().dtype != DType::kI32 || words.size() != 2 || scale == nullptr) return;
  const auto add = [&](Granularity granularity, Shape logical, uint64_t group) {
    proposals->push_back({FormatId::kQuarkInt4, std::move(logical), {}});
    Variant& variant = proposals->back().variant;
    variant.granularity = granularity;
    variant.group = group;
    variant.bits = 4;
    variant.inputs_first = granularity == Granularity::kGroups;
  };
  if (scale->shape.size() == 2) {
    if (const auto group = GroupSize(words[0], scale->shape[0]))
      add(Granularity::kGroups, {words[1] * kPerWord, words[0]}, *group);
  }
  add(Granularity::kTensor, {words[0], words[1] * kPerWord}, 0);
  add(Granularity::kRows, {words[0], words[1] * kPerWord}, 0);
}

}  // namespace

const Family kQuarkFamily = {kFormats, QuarkParts, Propose};

}  // namespace quantport
