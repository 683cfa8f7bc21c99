// AutoAWQ, version GEMM: 4-bit integers packed along the output, 8 a word in the order 0 2 4 6 1 3 5 7:
//   qweight  I32  [in, out/8]
//   qzeros   I32  [in/g, out/8]
//   scales   F16  [in/g, out]
#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kAwq, "AWQ"}};
constexpr uint64_t kPerWord = 8;

bool Recognize(const Candidate& candidate) {
  StoredPart* scales = candidate.Find("scales");
  StoredPart* zeros = candidate.Find("qzeros");
  const Shape& words = candidate.stored();
  if (candidate.value().leaf != "qweight" || candidate.dtype() != DType::kI32 || words.size() != 2 ||
      scales == nullptr || zeros == nullptr || scales->array.shape.size() != 2 || candidate.Find("g_idx") != nullptr)
    return false;
  const Shape& logical = candidate.weight->shape = {words[1] * kPerWord, words[0]};
  const auto group = GroupSize(logical[1], scales->array.shape[0], candidate.options);
  if (!group) return false;
  candidate.weight->format = FormatId::kAwq;
  return Fit(&candidate.value(), logical, {PackedAxis(1, kPerWord), Axis{0, 1}}) &&
         Fit(zeros, logical, {PackedAxis(1, kPerWord), Axis{0, *group}}) &&
         Fit(scales, logical, {Axis{1, 1}, Axis{0, *group}});
}

}  // namespace

const Format kAwqFormat = {kLabels, Recognize};

}  // namespace quantport
