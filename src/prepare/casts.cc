#include "prepare/casts.h"

#include <map>
#include <string>

namespace quantport {
namespace {

// Why a weight with powers of two is not cast; "" where it is, or where the format that is asked for has none.
std::string WhyRequantized(const PlannedMatrix& matrix) {
  const Encoding& encoding = matrix.target.encoding;
  const bool nvfp4 = encoding.format == FormatId::kNvfp4 || encoding.format == FormatId::kNvfp4WeightOnly;
  if (!nvfp4 || encoding.cast || !IsFp4OfPowers(matrix.source.coded)) return {};
  if (encoding.search != ScaleSearch::kNone) return "the recipe searches for scales";
  if (encoding.four_over_six) return "the recipe's scales are those of four-over-six";
  if (CanCast(matrix.source.coded, matrix.target)) return "they share weight_scale_2 with weights in other formats";
  return "their blocks lie in another order";
}

}  // namespace

std::vector<Warning> WarnOfRequantizing(const QuantizePlan& plan) {
  std::map<std::string, Warning> warnings;
  for (const PlannedMatrix& matrix : plan.matrices) {
    const std::string why = WhyRequantized(matrix);
    if (why.empty()) continue;
    Warning& warning = warnings[why];
    warning.id = "requantized";
    warning.text = "weights in FP4 with powers of two for scales are quantized anew, which loses, since " + why;
    if (!CanCast(matrix.source.coded, matrix.target))
      warning.remedy = "a recipe for NVFP4 with algorithm max keeps their numbers";
    AddName(matrix.name, &warning);
  }
  std::vector<Warning> all;
  for (auto& [why, warning] : warnings) all.push_back(std::move(warning));
  return all;
}

}  // namespace quantport
