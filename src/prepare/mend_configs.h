// Config files that say other things than the tensors are, where the tensors leave one thing to say.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "dialect/module_names.h"
#include "layout/recognize.h"
#include "load/configs.h"
#include "quantport/error.h"

namespace quantport {

struct MendedConfigs {
  std::map<std::string, std::string> texts;  // of the files that change
  std::vector<std::string> mended;           // what was wrong, a sentence each
};

// Exclude entries no longer cover quantized modules, what is stored unquantized is excluded, and a size of groups is
// the tensors'. Errors: every difference that is left then, kInvalidConfig, since it has no one right answer.
Result<MendedConfigs> MendConfigs(const Checkpoint& checkpoint, const ConfigFiles& configs,
                                  const std::vector<WeightUnit>& units, MatchBudget* budget);

}  // namespace quantport
