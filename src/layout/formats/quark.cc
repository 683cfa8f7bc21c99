// AMD Quark INT4, 8 values in a word of 32 bits (AWQ's order or 0 to 7). Its other formats are stored as FP8, MX and
// INT8 are elsewhere.
//   weight             I32  [in, out/8]   per group; scales and zero points are transposed as well
//   weight_scale       any  [in/g, out]
//   weight_zero_point  I32  [in/g, out/8]
//   weight             I32  [out, in/8]   per channel or per tensor
//   weight_scale       any  [out] or []
//   weight_zero_point  I32  [out/8]
#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kQuarkInt4, "QUARK_INT4"}};
constexpr uint64_t kPerWord = 8;

bool FitPerGroup(const Candidate& candidate, StoredPart* scale, StoredPart* zeros) {
  const Shape& logical = candidate.weight->shape = {candidate.stored()[1] * kPerWord, candidate.stored()[0]};
  if (scale->array.shape.size() != 2) return false;
  const auto group = GroupSize(logical[1], scale->array.shape[0], candidate.options);
  return group && Fit(&candidate.value(), logical, {PackedAxis(1, kPerWord), Axis{0, 1}}) &&
         Fit(scale, logical, {Axis{1, 1}, Axis{0, *group}}) &&
         (zeros == nullptr || Fit(zeros, logical, {PackedAxis(1, kPerWord), Axis{0, *group}}));
}

bool FitPerChannel(const Candidate& candidate, StoredPart* scale, StoredPart* zeros) {
  const Shape& logical = candidate.weight->shape = {candidate.stored()[0], candidate.stored()[1] * kPerWord};
  if (!Fit(&candidate.value(), logical, {Axis{0, 1}, PackedAxis(1, kPerWord)})) return false;
  if (FitScalar(scale, logical)) return zeros == nullptr || FitScalar(zeros, logical);
  return FitRows(scale, logical) && (zeros == nullptr || Fit(zeros, logical, {PackedAxis(0, kPerWord), std::nullopt}));
}

bool Recognize(const Candidate& candidate) {
  StoredPart* scale = candidate.Find("weight_scale");
  if (!candidate.HasOwnName() || candidate.dtype() != DType::kI32 || candidate.stored().size() != 2 ||
      scale == nullptr || !IsNumberScale(scale->array.dtype))
    return false;
  StoredPart* zeros = candidate.Find("weight_zero_point");
  candidate.weight->format = FormatId::kQuarkInt4;
  return FitPerGroup(candidate, scale, zeros) || FitPerChannel(candidate, scale, zeros);
}

}  // namespace

const Format kQuarkFormat = {kLabels, Recognize};

}  // namespace quantport
