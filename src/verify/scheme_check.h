// Holds what the configs say of the storage of weights against the tensors.
#pragma once

#include <vector>

#include "layout/recognize.h"
#include "load/configs.h"
#include "quantport/error.h"

namespace quantport {

// Contradictions that can't both be right: an algorithm or format that a weight is not stored in, a group size, tile or
// width that its scales refute, a module that is excluded by name and yet stored quantized. Quantized checkpoints have
// sloppy configs, so whatever could be an omission is no contradiction. Errors: kInvalidConfig naming file and tensor.
Errors CheckScheme(const ConfigFiles& configs, const std::vector<WeightUnit>& units);

}  // namespace quantport
