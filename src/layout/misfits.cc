#include "layout/misfits.h"

#include <fmt/format.h>

#include <algorithm>

namespace quantport {
namespace {

constexpr std::string_view kUnstatedHint =
    "a config.json with a quantization_config, or a hf_quant_config.json, belongs to these tensors";

}  // namespace

bool IsKnownQuantized(const WeightUnit& unit) {
  return unit.role == UnitRole::kValue && unit.weight.format != FormatId::kPlain &&
         unit.weight.format != FormatId::kUnrecognized;
}

std::vector<UnknownWeight> FindUnknownWeights(const std::vector<WeightUnit>& units, bool quantized) {
  std::vector<UnknownWeight> weights;
  for (const WeightUnit& unit : units) {
    if (unit.weight.format == FormatId::kUnrecognized) {
      weights.push_back({UnknownWeight::Kind::kUnrecognized, &unit});
    } else if (!quantized && IsKnownQuantized(unit)) {
      weights.push_back({UnknownWeight::Kind::kUnstated, &unit});
    }
  }
  return weights;
}

std::string MisfitText(const LogicalWeight& weight) {
  if (weight.misfit == nullptr) return "no format has these tensors";
  const Misfit& misfit = *weight.misfit;
  if (weight.format != FormatId::kUnrecognized) return fmt::format("the config contradicts it: {}", misfit.text);
  if (misfit.nearest == FormatId::kUnrecognized) return misfit.text;
  if (misfit.nearest == FormatId::kPlain) return fmt::format("no format has these tensors: {}", misfit.text);
  return fmt::format("no format has these tensors; the nearest is {}, but {}", FormatName(misfit.nearest), misfit.text);
}

Errors UnknownWeightErrors(const std::vector<UnknownWeight>& weights, ErrorKind kind) {
  Errors errors;
  for (const UnknownWeight& weight : weights) {
    if (weight.kind == UnknownWeight::Kind::kUnrecognized) {
      errors.push_back({kind,
                        MisfitText(weight.unit->weight),
                        {},
                        weight.unit->key,
                        "what they hold can't be told; write the checkpoint again with the tool that made it"});
    } else {
      errors.push_back({kind,
                        fmt::format("it is stored as {}, and no config says that anything is quantized",
                                    FormatName(weight.unit->weight.format)),
                        {},
                        weight.unit->key,
                        std::string(kUnstatedHint)});
    }
  }
  return errors;
}

std::vector<Warning> UnknownWeightWarnings(const std::vector<UnknownWeight>& weights) {
  Warning unrecognized{"unrecognized-weights",
                       "weights that no format has are carried along as they are",
                       0,
                       {},
                       "inspect says what does not fit"};
  Warning unstated{"unstated-quantization",
                   "weights are stored quantized, and no config says that anything is",
                   0,
                   {},
                   std::string(kUnstatedHint)};
  for (const UnknownWeight& weight : weights)
    AddName(weight.unit->key, weight.kind == UnknownWeight::Kind::kUnrecognized ? &unrecognized : &unstated);
  std::vector<Warning> warnings;
  for (Warning* warning : {&unrecognized, &unstated}) {
    if (warning->count > 0) warnings.push_back(std::move(*warning));
  }
  return warnings;
}

}  // namespace quantport
