// A tensor that is not quantized. Calibrated but unquantized linears keep their activation scales.
#include <algorithm>
#include <array>

#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kPlain, "plain"}};

bool Recognize(const Candidate& candidate) {
  const auto& parts = candidate.weight->parts;
  const bool alone = std::all_of(parts.begin() + 1, parts.end(), [](const StoredPart& part) {
    return part.leaf == "input_scale" || part.leaf == "output_scale";
  });
  if (!alone || !candidate.HasOwnName()) return false;
  FillPlainLayout(candidate.weight);
  return true;
}

}  // namespace

const Format kPlainFormat = {kLabels, Recognize};

}  // namespace quantport
