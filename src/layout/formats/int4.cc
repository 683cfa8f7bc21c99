// INT4 as ModelOpt exports it (W4A16_AWQ, which is the name of plain block-wise INT4 too, and W4A8_AWQ):
//   weight           U8   [out/2, in]     two's complement, row 2k in the low half of a byte
//   weight_scale     F32  [out, in/128]
//   pre_quant_scale  model's [in]         where it was not folded away
//   weight_scale_2, input_scale  F32 []   W4A8_AWQ
#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kInt4, "W4A16_AWQ"}, {FormatId::kW4A8Awq, "W4A8_AWQ"}};

bool Recognize(const Candidate& candidate) {
  StoredPart* scale = candidate.Find("weight_scale");
  const size_t rank = candidate.stored().size();
  if (!candidate.HasOwnName() || candidate.dtype() != DType::kU8 || scale == nullptr || rank < 2 ||
      !IsNumberScale(scale->array.dtype))
    return false;
  Shape& logical = candidate.weight->shape;
  logical = candidate.stored();
  logical[rank - 2] *= 2;
  if (!FitRows(scale, logical) && !FitAnyGroups(scale, logical, candidate.options)) return false;
  Axes axes = SameDims(rank);
  axes[rank - 2]->granularity = 2;
  candidate.weight->format = candidate.Find("weight_scale_2") != nullptr ? FormatId::kW4A8Awq : FormatId::kInt4;
  return Fit(&candidate.value(), logical, std::move(axes));
}

}  // namespace

const Format kInt4Format = {kLabels, Recognize};

}  // namespace quantport
