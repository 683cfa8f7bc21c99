// Scales that linears have once each, where engines load the linears as one and so need one number for all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "layout/fused_linears.h"
#include "layout/recognize.h"
#include "quantport/error.h"

namespace quantport {

// What engines do where such a scale is not the same in all linears.
enum class ScaleUse : uint8_t {
  kGlobal,  // of block scales: the largest is taken for all, and the others' weights come out too large
  kInput,   // of activations: the largest is taken for all
  kTensor,  // of FP8: weights are quantized again under the largest
};

// Linears that become one, whose scale differs.
struct UnequalScale {
  const FusedLinear* fused = nullptr;
  ScaleUse use = ScaleUse::kGlobal;
  std::string parent;  // of the linears
  std::string leaf;    // "weight_scale_2"
  // No problem, though engines lose by it: the checkpoint was quantized linear by linear, and no linears of its that
  // are fused share a scale. Never of experts, where the scale of the first is taken for both.
  bool tolerated = false;
  // In the order of the table's parts, of those that are there.
  std::vector<size_t> units;   // indices of the checkpoint's units
  std::vector<float> numbers;  // of each its scale; the first of them where experts in one tensor have several
};

// Reads the scalars alone. Errors: kIo.
Result<std::vector<UnequalScale>> FindUnequalScales(const Checkpoint& checkpoint, const std::vector<WeightUnit>& units);

// The problems that kGlobal is where it is not tolerated.
Errors ProblemsOf(const std::vector<UnequalScale>& scales, const std::vector<WeightUnit>& units);
// A sentence for each kind of the others, that says what engines do.
std::vector<std::string> NotesOf(const std::vector<UnequalScale>& scales);

// Experts without an activation scale that their siblings in a container have: servers fill it with nonsense.
Errors SiblingScaleProblems(const std::vector<WeightUnit>& units);

}  // namespace quantport
