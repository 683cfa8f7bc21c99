// FP4 experts of DeepSeek models, as transformers' fine-grained FP8 keeps them beside FP8 linears:
//   weight            I8       [out, in/2]   E2M1 values, input 2k in the low half of a byte
//   weight_scale_inv  F8_E8M0 or F32  [out, in/32]
#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kFp4Block, "FP4_BLOCK"}};
constexpr uint64_t kBlock = 32;

bool Recognize(const Candidate& candidate) {
  StoredPart* scale = candidate.Find("weight_scale_inv");
  if (!candidate.HasOwnName() || candidate.dtype() != DType::kI8 || scale == nullptr || candidate.stored().size() < 2)
    return false;
  Shape& logical = candidate.weight->shape;
  logical = candidate.stored();
  logical.back() *= 2;
  if (logical.back() % kBlock != 0 || !FitGroups(scale, logical, logical.size() - 1, kBlock)) return false;
  Axes axes = SameDims(logical.size());
  axes.back()->granularity = 2;
  candidate.weight->format = FormatId::kFp4Block;
  return Fit(&candidate.value(), logical, std::move(axes));
}

}  // namespace

const Format kFp4BlockFormat = {kLabels, Recognize};

}  // namespace quantport
