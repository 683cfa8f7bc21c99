// What a resolved recipe and a calibration mean for each matrix of a model.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "plan/memory_modules.h"
#include "plan/quantize_plan.h"
#include "quantport/warning.h"
#include "recipe/recipe.h"
#include "recipe/resolve.h"

namespace quantport {

// Largest magnitudes of activations, by the module's name in memory or on the hub: `<module>.input_amax`,
// `<attention>.k_amax`, `<attention>.v_amax`. The first projection of a container of experts is
// `<container>.gate_up_proj` (or up_proj), the second `<container>.down_proj`.
using Calibration = std::map<std::string, float>;

struct ChosenFormats {
  std::vector<std::optional<MatrixChoice>> choices;  // of MemoryModel::matrices
  std::vector<CacheScale> cache_scales;
  std::set<std::string> used;  // entries of the calibration
  std::vector<Warning> warnings;
};

struct ChoiceInput {
  const Recipe* recipe = nullptr;
  const MemoryModel* memory = nullptr;
  const ResolvedRecipe* resolved = nullptr;  // of `modules`
  std::vector<size_t> modules;               // of each resolved module, its index in MemoryModel::modules
  const Calibration* calibration = nullptr;  // nullptr: none was given
  bool only_plan = false;                    // without a calibration, a warning says how many scales are not known yet
};

// Errors: kUnsupportedRecipe where a recipe needs a calibration and there is none or it lacks a module, or asks for
// what is not computed here; kQuantConversionUnsupported for weights that can't be quantized as they are kept.
Result<ChosenFormats> ChooseFormats(const ChoiceInput& input);

}  // namespace quantport
