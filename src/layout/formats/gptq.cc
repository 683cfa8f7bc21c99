// GPTQ (AutoGPTQ, GPTQModel), b-bit integers in words of 32 bits, one after the other and also across words:
//   qweight  I32  [in*b/32, out]            packed along the input
//   qzeros   I32  [cdiv(in, g), out*b/32]   packed along the output
//   scales   F16  [cdiv(in, g), out]
//   g_idx    I32  [in]                      the group of each input
#include <bit>
#include <cstring>

#include "base/checked.h"
#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kGptq, "GPTQ"}};

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

bool FitGroupIndex(const Candidate& candidate, StoredPart* index, uint64_t group) {
  const Shape& logical = candidate.weight->shape;
  if (index->array.dtype != DType::kI32) return false;
  if (!candidate.options.ordered_groups) {
    return Fit(index, logical,
               {std::nullopt, WholeAxis(0, logical[1], logical[1],
                                        "the groups of inputs are numbered through, in the order of activations")});
  }
  index->restate = [group](std::span<const uint64_t> shape) { return OrderedGroups(shape, group); };
  return Fit(index, logical, {std::nullopt, Axis{0, 1}});
}

bool Recognize(const Candidate& candidate) {
  StoredPart* scales = candidate.Find("scales");
  StoredPart* zeros = candidate.Find("qzeros");
  const Shape& words = candidate.stored();
  if (candidate.value().leaf != "qweight" || candidate.dtype() != DType::kI32 || words.size() != 2 ||
      scales == nullptr || zeros == nullptr || scales->array.shape.size() != 2 || zeros->array.shape.size() != 2)
    return false;
  const uint64_t out = words[1];
  const uint64_t bits = out == 0 ? 0 : zeros->array.shape[1] * 32 / out;
  if (scales->array.shape[1] != out || (bits != 2 && bits != 3 && bits != 4 && bits != 8)) return false;
  const Shape& logical = candidate.weight->shape = {out, words[0] * 32 / bits};
  const auto group = GroupSize(logical[1], scales->array.shape[0], candidate.options);
  if (!group) return false;
  candidate.weight->format = FormatId::kGptq;
  StoredPart* index = candidate.Find("g_idx");
  return Fit(&candidate.value(), logical, {Axis{1, 1}, PackedAxis(0, logical[1], bits, 32)}) &&
         Fit(zeros, logical, {PackedAxis(1, out, bits, 32), Axis{0, *group}}) &&
         Fit(scales, logical, {Axis{1, 1}, Axis{0, *group}}) &&
         (index == nullptr || FitGroupIndex(candidate, index, *group));
}

// AutoAWQ's rule as well: without scales the words mean nothing. Some kernels' own layouts have no qzeros.
std::optional<std::string> Missing(const LogicalWeight& weight) {
  if (weight.parts[0].leaf != "qweight" || weight.Find("scales") != nullptr) return std::nullopt;
  return "scales is missing beside qweight";
}

}  // namespace

const Format kGptqFormat = {kLabels, Recognize, Missing};

}  // namespace quantport
