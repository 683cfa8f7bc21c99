// Holds the config files of a checkpoint against its tensors and each other.
#pragma once

#include <vector>

#include "layout/recognize.h"
#include "load/configs.h"
#include "quantport/error.h"

namespace quantport {

// Problems: an exclude list that matches nothing at all; layers said to be quantized that are not; two config files
// that mean different modules.
Errors CheckConfigs(const ConfigFiles& configs, const std::vector<WeightUnit>& units);

}  // namespace quantport
