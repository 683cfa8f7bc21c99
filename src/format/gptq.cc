// GPTQ (AutoGPTQ, GPTQModel), b-bit integers in words of 32 bits, one after the other and also across words:
//   qweight  I32  [in*b/32, out]            packed along the input
//   qzeros   I32  [cdiv(in, g), out*b/32]   packed along the output
//   scales   F16  [cdiv(in, g), out]
//   g_idx    I32  [in]                      the group of each input
#include <bit>
#include <cstring>

#include "base/checked.h"
#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kGptq, "GPTQ"}};
constexpr std::string_view kGroupIndex = "g_idx";

// g_idx for a weight of another shape, each of its experts included, where groups follow each other.
std::vector<std::byte> OrderedGroups(std::span<const uint64_t> shape, uint64_t group) {
  const uint64_t inputs = shape.back();
  uint64_t weights = 1;
  for (size_t dim = 0; dim + 2 < shape.size(); ++dim) weights *= shape[dim];
  std::vector<std::byte> bytes(weights * inputs * 4);
  for (uint64_t i = 0; i < weights * inputs; ++i) {
    const auto index = static_cast<uint32_t>(i % inputs / group);
    std::memcpy(&bytes[i * 4], &index, 4);
  }
  return bytes;
}
static_assert(std::endian::native == std::endian::little, "safetensors is little-endian, and so is this code");

Part GroupIndexPart(const Shape& logical, const Variant& variant) {
  const Axis axis = variant.ordered_groups
                        ? Axis{0, 1}
                        : WholeAxis(0, logical[1], logical[1],
                                    "the groups of inputs are numbered through, in the order of activations");
  // Without order a position says the group as well.
  const bool required = !variant.ordered_groups;
  Part part{Role::kGroupIndex, kGroupIndex, {DType::kI32}, {FormOf(logical, 1, {std::nullopt, axis})}, required};
  if (variant.ordered_groups)
    part.restate = [group = variant.group](std::span<const uint64_t> shape) { return OrderedGroups(shape, group); };
  return part;
}

std::vector<Part> GptqParts(const Proposal& proposal) {
  const Shape& logical = proposal.shape;
  const Variant& variant = proposal.variant;
  std::vector<Part> parts;
  parts.push_back({Role::kValues,
                   leaf::kQWeight,
                   {DType::kI32},
                   {FormOf(logical, 2, {Axis{1, 1}, PackedAxis(0, logical[1], variant.bits, 32)})}});
  parts.push_back({Role::kScale,
                   leaf::kScales,
                   {DType::kF16, DType::kBF16, DType::kF32},
                   {FormOf(logical, 2, {Axis{1, 1}, Axis{0, variant.group}})}});
  parts.push_back({Role::kZeroPoint,
                   leaf::kQZeros,
                   {DType::kI32},
                   {FormOf(logical, 2, {PackedAxis(1, logical[0], variant.bits, 32), Axis{0, variant.group}})}});
  parts.push_back(GroupIndexPart(logical, variant));
  AddActivationScales(logical, &parts);
  return parts;
}

// The last group may be of fewer inputs, which only the config tells.
std::optional<uint64_t> GroupOf(uint64_t inputs, uint64_t groups, const RecognizeOptions& options) {
  if (options.group_size > 0 && CeilDiv(inputs, options.group_size) == groups) return options.group_size;
  return GroupSize(inputs, groups);
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const StoredLeaf* scales = module.Find(leaf::kScales);
  const StoredLeaf* zeros = module.Find(leaf::kQZeros);
  const auto& words = module.value().shape;
  if (module.value().leaf != leaf::kQWeight || words.size() != 2 || scales == nullptr || zeros == nullptr ||
      scales->shape.size() != 2 || zeros->shape.size() != 2)
    return;
  const uint64_t out = words[1];
  const uint64_t bits = out == 0 ? 0 : zeros->shape[1] * 32 / out;
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) return;
  Proposal proposal{FormatId::kGptq, {out, words[0] * 32 / bits}, {}};
  const auto group = GroupOf(proposal.shape[1], scales->shape[0], module.options);
  if (!group) return;
  proposal.variant.granularity = Granularity::kGroups;
  proposal.variant.group = *group;
  proposal.variant.bits = bits;
  proposal.variant.ordered_groups = module.options.ordered_groups;
  proposals->push_back(std::move(proposal));
}

// AutoAWQ's rule as well: without scales the words mean nothing. Some kernels' own layouts have no qzeros.
std::optional<std::string> Missing(const StoredModule& module) {
  if (module.value().leaf != leaf::kQWeight || module.Has(leaf::kScales)) return std::nullopt;
  return "scales is missing beside qweight";
}

}  // namespace

const Family kGptqFamily = {kFormats, GptqParts, Propose, Missing};

}  // namespace quantport
