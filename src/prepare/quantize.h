// From a hub checkpoint and a recipe to a plan and both config files: headers -> mapping -> modules in memory -> recipe
// -> plan -> configs, a line a stage. Reads, and writes nothing.
#pragma once

#include <map>
#include <string>

#include "checkpoint/checkpoint.h"
#include "plan/quantize_plan.h"
#include "quantport/quantize.h"

namespace quantport {

struct PreparedQuantize {
  Checkpoint checkpoint;
  QuantizePlan plan;
  QuantizeReport report;
};

// Errors: as Quantize. `only_plan`: the plan is looked at and never carried out, so that it needs no calibration.
Result<PreparedQuantize> PrepareQuantize(const QuantizeOptions& options, const Storage& storage,
                                         bool only_plan = false);
// Errors: as Dequantize.
Result<PreparedQuantize> PrepareDequantize(const DequantizeOptions& options, const Storage& storage);

}  // namespace quantport
