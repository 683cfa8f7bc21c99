// Sorts the units of an export into groups, by rule or by reference.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "plan/groups.h"

namespace quantport {

struct Grouping {
  std::vector<Group> groups;
  std::vector<size_t> group_of;  // for each unit; npos for those that follow another unit
  // Biases that are cut or fused with their weight: weight unit -> bias unit.
  std::unordered_map<size_t, size_t> attached_bias;
  // Strays that the mapping says nothing of: weight unit -> the units that stand below its module.
  std::unordered_map<size_t, std::vector<size_t>> followers;
  std::unordered_map<std::string, size_t> unit_of_key;  // values only
  std::vector<std::unique_ptr<Transform>> reversed;     // what `operations` of groups by reference point into

  static constexpr size_t npos = static_cast<size_t>(-1);
};

// `inverse` may be null; `rules` names what it doesn't know.
Grouping BuildGroups(const std::vector<WeightUnit>& units, const std::vector<EngineKey>& keys, const RuleNames& rules,
                     const Inverse* inverse);

}  // namespace quantport
