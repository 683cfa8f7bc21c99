// AutoAWQ, version GEMM: 4-bit integers packed along the output, 8 a word in the order 0 2 4 6 1 3 5 7:
//   qweight  I32  [in, out/8]
//   qzeros   I32  [in/g, out/8]
//   scales   F16  [in/g, out]
#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kAwq, "AWQ"}};
constexpr uint64_t kPerWord = 8;

std::vector<Part> AwqParts(const Proposal& proposal) {
  const Shape& logical = proposal.shape;
  const uint64_t group = proposal.variant.group;
  std::vector<Part> parts;
  parts.push_back(
      {Role::kValues, leaf::kQWeight, {DType::kI32}, {FormOf(logical, 2, {PackedAxis(1, kPerWord), Axis{0, 1}})}});
  parts.push_back({Role::kScale,
                   leaf::kScales,
                   {DType::kF16, DType::kBF16, DType::kF32},
                   {FormOf(logical, 2, {Axis{1, 1}, Axis{0, group}})}});
  parts.push_back({Role::kZeroPoint,
                   leaf::kQZeros,
                   {DType::kI32},
                   {FormOf(logical, 2, {PackedAxis(1, kPerWord), Axis{0, group}})}});
  AddActivationScales(logical, &parts);
  return parts;
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const StoredLeaf* scales = module.Find(leaf::kScales);
  const auto& words = module.value().shape;
  if (module.value().leaf != leaf::kQWeight || words.size() != 2 || scales == nullptr || !module.Has(leaf::kQZeros) ||
      scales->shape.size() != 2 || module.Has("g_idx"))
    return;
  Proposal proposal{FormatId::kAwq, {words[1] * kPerWord, words[0]}, {}};
  const auto group = GroupSize(proposal.shape[1], scales->shape[0]);
  if (!group) return;
  proposal.variant.granularity = Granularity::kGroups;
  proposal.variant.group = *group;
  proposal.variant.bits = 4;
  proposals->push_back(std::move(proposal));
}

}  // namespace

const Family kAwqFamily = {kFormats, AwqParts, Propose};

}  // namespace quantport
