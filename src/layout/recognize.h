// Finds the logical weights among stored tensors: which tensors belong together, and in which layout they are.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "layout/layouts.h"
#include "layout/logical_weight.h"
#include "quantport/error.h"
#include "safetensors/table.h"

namespace quantport {

// How a companion's name is joined to its weight's.
enum class NameStyle : uint8_t {
  kModule,     // "<module>.weight", "<module>.weight_scale"
  kParameter,  // "<parameter>", "<parameter>_weight_scale": parameters that are not called weight (stacked experts)
};

// What a unit is to the names: most are values; biases and KV scales follow the weight of their module.
enum class UnitRole : uint8_t { kValue, kBias, kCacheScale };

// One logical weight and what is stored for it, or a single tensor that belongs to no other.
struct WeightUnit {
  std::string key;  // the name transformers would give the value: "<module>.weight", "<parameter>", or its own
  // Of a bias, cache scale or stray: the key of the value it belongs to; else `key`. A stray is a value that no format
  // has and that stands below the module of another one: "<linear>.act_scale".
  std::string owner;
  // The module that owns it in the file, for config references. It is that of the key but for experts that are stored
  // below their projections, "experts.gate_proj.0", which everyone else has as "experts.0.gate_proj".
  std::string module;
  UnitRole role = UnitRole::kValue;
  NameStyle style = NameStyle::kModule;
  LogicalWeight weight;
  std::vector<uint32_t> tensors;  // of the table, one for each part

  bool IsStray() const { return role == UnitRole::kValue && owner != key; }
  // Stored below its projection and not below its expert.
  bool IsBelowProjection() const;
};

// The units in the order of their first tensor. Errors: kMissingCompanion for every weight that lacks a scale its
// other tensors call for, and for scales without a weight.
Result<std::vector<WeightUnit>> RecognizeUnits(const TensorTable& table, const RecognizeOptions& options);

// The same grouping by names alone. For references given as an index.
struct NamedValues {
  std::vector<std::string> keys;  // of the values, companions left out; sorted
  // Companions that stand below modules, and how they are spelled: null for the format's own name. Of several
  // spellings, the first met.
  std::map<std::string, const LeafSpelling*> leaves;
};
NamedValues FindValues(const std::vector<std::string>& names);
std::vector<std::string> ValueKeys(const std::vector<std::string>& names);

// The stored name of a part of a unit whose value is called `key`. `suffix`: what joins it to a bare parameter, where
// that is not "_" + leaf (StoredPart::suffix).
std::string PartTensorName(std::string_view key, NameStyle style, std::string_view leaf, std::string_view suffix = {});

}  // namespace quantport
