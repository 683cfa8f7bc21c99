// What a hub checkpoint's weights become in memory, as far as names and shapes tell: the modules that a quantizer sees,
// and the hub's matrices behind each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "layout/recognize.h"
#include "mapping/resolve.h"
#include "plan/conversion.h"
#include "plan/draft_layers.h"
#include "quantport/warning.h"
#include "recipe/resolve.h"

namespace quantport {

// Where a matrix stands in memory.
struct MemoryPlace {
  size_t module = 0;       // index into MemoryModel::modules
  std::string projection;  // of a container: "gate_up_proj", "up_proj", "down_proj"; "" for a linear
  uint64_t expert = 0;

  friend auto operator<=>(const MemoryPlace&, const MemoryPlace&) = default;
};

// A matrix that the quantized checkpoint stores by itself: a weight of the hub, or an expert's part of a stacked one.
struct HubMatrix {
  std::string name;   // of its module in the result
  size_t unit = 0;    // the weight it is read from, or the first of them
  bool whole = true;  // it is all of that weight, as it is stored
  Array array;        // where not: its elements, of stored tensors
  std::vector<uint64_t> shape;
  std::vector<MemoryPlace> places;  // mostly one
  // Where not 0: a parameter that holds so many experts side by side, inputs before outputs. `name` is the parameter's,
  // and `shape` all inputs of all experts by their outputs.
  uint64_t batched = 0;
};

struct MemoryModule {
  QuantizableModule module;
  bool router = false;           // never quantized, but named among what is not
  bool grouped = false;          // the same of a linear that multiplies group by group
  std::vector<std::string> hub;  // the hub modules it is made of
  std::string obstacle = {};     // why its weights can't be quantized
  std::string draft = {};        // the path of the draft layers that it belongs to; empty: to none
};

struct MemoryModel {
  std::vector<MemoryModule> modules;  // in about the order in which models have them
  std::vector<HubMatrix> matrices;
  ModuleMap hub_names;  // module in memory -> hub modules
  std::vector<Warning> warnings;
};

struct MemoryInput {
  const TensorTable* table = nullptr;
  const std::vector<WeightUnit>* units = nullptr;  // of the table
  const ResolvedModel* model = nullptr;            // nullptr: names in memory are taken to be the hub's
  std::span<const Transform> legacy;
  const DraftLayers* drafts = nullptr;  // nullptr: which layers are draft layers is not asked for
};

// Experts that are stacked in memory are a container, whatever the hub has; each expert's projections are matrices of
// their own, but where inputs come before outputs: those are quantized in one tensor. Errors: kInvalidMapping. What
// loading can't be followed through makes a warning, and names stay.
Result<MemoryModel> FindMemoryModules(const MemoryInput& input);

}  // namespace quantport
