// Recipes and calibrations by their files.
#pragma once

#include <filesystem>
#include <vector>

#include "io/storage.h"
#include "plan/quantize_choices.h"
#include "quantport/error.h"
#include "recipe/load.h"

namespace quantport {

// Reads recipe files of at most 1 MiB.
RecipeSources SourcesOf(const std::vector<std::filesystem::path>& folders);

// The scalars of a calibration file. Errors: kIo, kInvalidHeader; kUnsupportedRecipe for tensors that are no F32
// scalars called input_amax, k_amax or v_amax.
Result<Calibration> ReadCalibration(const Storage& storage, const std::string& address);

}  // namespace quantport
