// Weights whose stored bytes mean nothing that is known: what they are, and why. Whoever only moves names carries them
// along and says so; whoever interprets bytes refuses them; verification counts them as problems.
#pragma once

#include <string>
#include <vector>

#include "format/match.h"
#include "layout/recognize.h"
#include "quantport/error.h"
#include "quantport/warning.h"

namespace quantport {

// A weight that is stored in a quantized format.
bool IsKnownQuantized(const WeightUnit& unit);

struct UnknownWeight {
  enum class Kind {
    kUnrecognized,  // its tensors are of no format
    kUnstated,      // they are of one, and no config says that anything is quantized
  };
  Kind kind = Kind::kUnrecognized;
  const WeightUnit* unit = nullptr;
};

// `quantized`: some config says that something is. `units` must outlive the result.
std::vector<UnknownWeight> FindUnknownWeights(const std::vector<WeightUnit>& units, bool quantized);

// One error for each, naming the nearest format and what does not fit.
Errors UnknownWeightErrors(const std::vector<UnknownWeight>& weights, ErrorKind kind);
// One warning for each kind.
std::vector<Warning> UnknownWeightWarnings(const std::vector<UnknownWeight>& weights);

// What a misfit is in words: "no format has these tensors; the nearest is NVFP4, but weight_scale is ...".
std::string MisfitText(const LogicalWeight& weight);

}  // namespace quantport
