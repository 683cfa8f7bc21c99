// Puts weights that become one under a common scale: reads their scalars, re-expresses values, measures the error.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "exec/rescale.h"
#include "exec/sources.h"
#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

class MergedScales {
 public:
  // Reads every scalar of the plan's merges. Errors: kIo; kQuantConversionUnsupported for scalars that are no positive
  // numbers.
  static Result<MergedScales> Read(const Plan& plan, const Sources& sources);

  // Carries out step `step` (1 + index into Plan::steps) on stored elements, in place. Safe in several threads.
  void Apply(uint32_t step, std::span<std::byte> bytes);

  // One entry for each tensor and scalar, in the order of the plan.
  std::vector<RescaleError> Errors() const;

  MergedScales() = default;
  MergedScales(MergedScales&& other) noexcept : steps_(std::move(other.steps_)) {}

 private:
  struct Step {
    std::vector<std::byte> merged;         // of kMerged: the scalar's bytes
    RescaledCodes codes;                   // else
    std::array<uint64_t, 256> count = {};  // how often it was met
    std::string tensor;
    std::string scalar;
  };

  std::vector<Step> steps_;
  std::mutex mutex_;  // guards the counts
};

}  // namespace quantport
