// State dicts: the names of tensors that are in memory, reverted without looking at what they hold.
//
// The caller keeps the tensors. PlanStateDict takes their names, dtypes and shapes, and says what each tensor of the
// result is of them: the same tensor, a view of one, or something that needs memory of its own. Nothing here allocates
// or reads a tensor; time and memory grow with the number of tensors, never with their bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quantport/dtype.h"
#include "quantport/error.h"
#include "quantport/quantport.h"

namespace quantport {

struct StateTensor {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
};

// The hub checkpoint by what is known of its tensors: all of them with dtype and shape, or names alone.
struct StateReference {
  std::vector<StateTensor> tensors;
  std::vector<std::string> names;  // where there are no tensors
};

struct StateDictOptions {
  std::string config;                       // the text of config.json
  std::map<std::string, std::string> more;  // of further config files: "hf_quant_config.json" -> text
  std::string folder;                       // the files are in, as errors call it; "" where they are in none
  MappingOptions mapping;
  std::optional<std::filesystem::path> reference;   // as RevertOptions::reference
  std::optional<StateReference> reference_tensors;  // instead of it
  bool by_rules = false;                            // as RevertOptions::by_rules
  OnUnsupported on_unsupported = OnUnsupported::kKeepNames;
  ExpertForm experts = ExpertForm::kExpanded;
  MergeScales merge_scales = MergeScales::kRefuse;
  bool strict = false;
  bool shapes_known = true;  // false: the tensors stand for their names; shapes are not held against the reference's
  // The bytes of a tensor by its place in the dict, or nothing where they can't be had. Asked for tensors of a few
  // bytes that say how others are stored.
  std::function<std::optional<std::string>(uint32_t tensor)> read;
};

// Of a result that is no tensor of the dict; of a box that holds zeros.
inline constexpr uint32_t kNoTensor = UINT32_MAX;

// Results that are views of one tensor and alike: result i is elements of `shape`, `strides` apart, the first at
// `offset` + i * `distance`. All of them count elements of the tensor as if it lay dense and row-major.
struct StateSeries {
  uint32_t tensor = 0;
  uint64_t offset = 0;
  uint64_t distance = 0;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> strides;
  std::vector<uint32_t> results;  // at least one; indices into StateDictPlan::names
  bool copied = false;            // other results have these elements already: to be copied, so that none share them
};

// Elements at regular distances in one tensor, and where they go: to element `to` + sum of index * to_stride.
struct StateBox {
  struct Dim {
    uint64_t extent = 0;
    uint64_t from_stride = 0;
    uint64_t to_stride = 0;
  };
  uint32_t tensor = 0;  // or kNoTensor: zeros
  uint32_t step = 0;    // computed on the way: 0 nothing, else 1 + index into StateDictPlan::steps
  uint64_t from = 0;
  uint64_t to = 0;
  std::vector<Dim> dims;
};

// Dense elements that are put together from boxes, which takes memory of its own.
struct StateArray {
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
  std::vector<StateBox> boxes;
};

struct StateJoined {
  uint32_t result = 0;
  StateArray array;
};

// A result whose bytes no tensor of the dict has, for example a shape that is stated anew.
struct StateLiteral {
  uint32_t result = 0;
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
  std::string bytes;
};

// What must be equal, bit for bit, since the weights it belongs to become one.
struct StateCheck {
  std::string leaf;
  std::string tensor_a;
  std::string tensor_b;
  StateArray a;
  StateArray b;
};

// With MergeScales::kMax: scalars of which the result gets one. Element `offsets[i]` of `tensors[i]`.
struct StateMerge {
  std::string leaf;
  bool reciprocal = false;
  DType dtype = DType::kF32;
  std::vector<uint32_t> tensors;
  std::vector<uint64_t> offsets;
  std::vector<std::string> names;  // of the tensors
};

struct StateStep {
  enum class Kind : uint8_t { kMerged, kValues, kBlockScales };
  Kind kind = Kind::kMerged;
  uint32_t merge = 0;  // index into StateDictPlan::merges
  uint32_t part = 0;   // which of its scalars the elements were under
  DType dtype = DType::kU8;
};

struct StateDictPlan {
  std::vector<std::string> names;  // of the result, a tensor standing where the first that it is made of stood
  std::vector<uint32_t> whole;     // for each of them the tensor of the dict that it is as it is, or kNoTensor
  std::vector<uint32_t> copied;    // results that are a whole tensor which another result is too: to be copied
  std::vector<StateSeries> series;
  std::vector<StateJoined> joined;
  std::vector<StateLiteral> literals;
  std::vector<StateCheck> checks;  // to be carried out before the result is used, see KeepStateDict
  std::vector<StateMerge> merges;
  std::vector<StateStep> steps;
  std::map<std::string, std::string> configs;  // file name -> text, where module references change
  RevertReport report;

  // The hub's path of a module of the model, whether the dict holds it or not.
  std::function<std::string(const std::string& module)> rename_module;
  // A config.json or hf_quant_config.json text with the hub's module references. Errors: kInvalidConfig naming `file`.
  std::function<Result<std::string>(const std::string& text, std::string_view file)> rewrite_references;
  // The plan that keeps all names, since `errors` were found in the values; or `errors` with OnUnsupported::kFail.
  std::function<Result<StateDictPlan>(Errors errors)> keep_names;
};

// Of the names of tensors, those of the weights and other values: what is stored for a weight beside it is left out.
std::vector<std::string> ValueNames(const std::vector<std::string>& names);

// How a state dict becomes one with hub names. Errors: as Revert, but for those of writing.
Result<StateDictPlan> PlanStateDict(std::vector<StateTensor> tensors, const StateDictOptions& options);

// What it means that checks failed, by their places in StateDictPlan::checks: for StateDictPlan::keep_names.
Errors FailedChecks(const StateDictPlan& plan, const std::vector<size_t>& failed);

// What a step does to elements of one byte.
struct StateStepResult {
  bool merged = false;  // it is the merged scalar itself, scalar `winner` of merge `merge`
  uint32_t merge = 0;
  uint32_t winner = 0;
  std::array<uint8_t, 256> code = {};    // else: what each code becomes
  std::array<double, 256> value = {};    // and, for the report: its exact value in units of the common scale,
  std::array<double, 256> squared = {};  // and the squared error
};

// `scalars[m][i]`: the bytes of scalar i of merge m. An entry for each step. Errors: kQuantConversionUnsupported for
// scalars that are no positive numbers.
Result<std::vector<StateStepResult>> MergeStateScalars(const StateDictPlan& plan,
                                                       const std::vector<std::vector<std::string>>& scalars);

// Fills RevertReport::rescaled from how often each step met each code.
void ReportRescaled(const std::vector<StateStepResult>& steps, const std::vector<std::array<uint64_t, 256>>& counts,
                    StateDictPlan* plan);

}  // namespace quantport
