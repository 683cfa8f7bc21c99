// INT8 values with scales:
//   weight            I8   [out, in]
//   weight_scale      F32  [out]                 ModelOpt; with input_scale (W8A8_SQ_PER_CHANNEL) or without (W8A16)
//                     any  [], [1], [out, 1] or [out, in/group]   compressed-tensors, AMD Quark
//   weight_zero_point I8   as weight_scale       asymmetric
//   pre_quant_scale   model's [in]               SmoothQuant
//   input_scale, input_zero_point  [] or [1]
#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kInt8, "W8A16"},
                                   {FormatId::kInt8SmoothQuant, "W8A8_SQ_PER_CHANNEL"},
                                   {FormatId::kIntQuantized, "int-quantized"}};

FormatId Variant(const Candidate& candidate, const StoredPart& scale) {
  // ModelOpt's have a number for each row, without a dimension of one behind it. One number for all rows is another's.
  const size_t outputs = candidate.stored().size() - 2;
  const bool rows = scale.axes[outputs].has_value() || candidate.stored()[outputs] == 1;
  const bool modelopt = scale.array.shape.size() + 1 == candidate.stored().size() && rows &&
                        candidate.Find("weight_zero_point") == nullptr;
  if (!modelopt) return FormatId::kIntQuantized;
  const bool static_inputs = candidate.Find("input_scale") != nullptr || candidate.Find("pre_quant_scale") != nullptr;
  return static_inputs ? FormatId::kInt8SmoothQuant : FormatId::kInt8;
}

bool Recognize(const Candidate& candidate) {
  StoredPart* scale = candidate.Find("weight_scale");
  if (!candidate.HasOwnName() || candidate.dtype() != DType::kI8 || scale == nullptr || candidate.stored().size() < 2 ||
      !IsNumberScale(scale->array.dtype))
    return false;
  const Shape& logical = candidate.weight->shape = candidate.stored();
  candidate.value().axes = SameDims(logical.size());
  if (!FitScalar(scale, logical) && !FitRows(scale, logical) && !FitAnyGroups(scale, logical, candidate.options))
    return false;
  if (StoredPart* zeros = candidate.Find("weight_zero_point"); zeros != nullptr && !FitLike(zeros, *scale))
    return false;
  candidate.weight->format = Variant(candidate, *scale);
  return true;
}

}  // namespace

const Format kInt8Format = {kLabels, Recognize};

}  // namespace quantport
