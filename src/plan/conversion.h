// A conversion as a value: which tensors come out, under which names, made of which stored bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "layout/logical_weight.h"
#include "layout/recognize.h"
#include "layout/shared_scales.h"
#include "mapping/published.h"
#include "mapping/resolve.h"
#include "mapping/submodel.h"
#include "quantport/error.h"
#include "quantport/warning.h"
#include "safetensors/table.h"

namespace quantport {

// One tensor of the result.
struct ConvertedTensor {
  std::string name;
  Array array;
  FormatId format = FormatId::kPlain;  // of the weight it belongs to
  uint32_t shard = 0;                  // of its first source
  // Made by computing: `array` states dtype and shape alone, and this is where in the shard's data its weight begins.
  std::optional<uint64_t> computed_at = {};
};

// One logical weight of the result, for shape checks and module names.
struct ConvertedWeight {
  std::string key;         // its hub key: the name its value would have in an unquantized hub checkpoint
  std::string source_key;  // of the first unit it was made of
  UnitRole role = UnitRole::kValue;
  FormatId format = FormatId::kPlain;
  std::vector<uint64_t> shape;
};

// Where the modules of the export went: in-memory module -> hub modules, in order of first appearance. Only modules
// that own a weight, since config files speak of no others.
using ModuleMap = std::map<std::string, std::vector<std::string>>;

// A tensor that the reversed rules, all taken as used, would name otherwise than the reference does.
struct RuleDifference {
  std::string in_memory;
  std::string by_reference;
  std::string by_rule;
};

struct Conversion {
  std::vector<ConvertedTensor> tensors;
  std::vector<ConvertedWeight> weights;
  SharedScales shared;  // to be compared or computed once data can be read
  ModuleMap modules;
  size_t renamed = 0;  // tensors whose name changed
  size_t cut = 0;      // tensors that are parts of, or put together from, stored ones
  // Names that two hub names would load to; only a reference settles which one the hub has.
  size_t ambiguous = 0;
  std::vector<std::string> ambiguous_examples;
  std::vector<std::string> ambiguous_transforms;  // described, those that it is due to
  // With a reference or published names: names for which the reversed rules would give another result.
  std::vector<RuleDifference> rules_differ;
  std::vector<uint32_t> used_transforms;       // of the model's, in load order
  std::vector<std::string> only_in_reference;  // hub keys that nothing of the export became
  std::vector<Warning> warnings;
  bool already_hub = false;  // the tensors keep their names and bytes
  // The new path of a module, by the mapping and the reference, whether the export holds it or not.
  std::function<std::string(const std::string&)> rename_module;
};

// The hub checkpoint's own names, to be guided by.
struct ReferenceView {
  std::vector<std::string> keys;                                // of its values, sorted
  std::map<std::string, std::vector<uint64_t>> logical_shapes;  // where headers were given and the layout is known
  std::map<std::string, const LeafSpelling*> leaves = {};       // of companions; null for the format's own name
};

struct ConversionInput {
  const TensorTable* table = nullptr;
  const std::vector<WeightUnit>* units = nullptr;
  const ResolvedModel* model = nullptr;
  std::span<const Transform> legacy;          // applied at load only
  const ReferenceView* reference = nullptr;   // null: by the published names that are known, or by rule
  const PublishedNames* published = nullptr;  // null: none are known, or they are left aside
  // Set where the export is a part of the reference's model: `model` and `reference` are the whole's then.
  std::optional<SubModelPlace> place = {};
  bool loading = false;        // ApplyNames
  bool stack_experts = false;  // of containers that the hub keeps in one tensor; else they stay expanded
  bool partial = false;        // names are only looked up: experts may be missing where they become one tensor
  bool merge_max = false;      // differing scalars of weights that become one are merged
};

// Reverses in-memory names to hub names. Errors, all of them: kQuantConversionUnsupported, kNameCollision,
// kReferenceMismatch, kInvalidMapping.
Result<Conversion> RevertNames(const ConversionInput& input);

// The load direction: hub names to in-memory names. Whether a base model's prefix is to be added or stripped follows
// from the composition of the class, since a model's own names are not at hand. Errors: as RevertNames.
Result<Conversion> ApplyNames(const ConversionInput& input);

// Every tensor under the name it has: for exports that are in hub names already, and for the fallback.
Conversion KeepNames(const TensorTable& table, const std::vector<WeightUnit>& units);

}  // namespace quantport
