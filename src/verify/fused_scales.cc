#include "verify/fused_scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <optional>
#include <tuple>

#include "base/text.h"
#include "load/small_tensors.h"
#include "quantport/warning.h"

namespace quantport {
namespace {

// One part of a unit that its linear has once.
struct ScalePart {
  size_t unit = 0;
  size_t order = 0;  // among the fused linear's parts
  uint32_t tensor = 0;
};

// What linears that become one have of one scale.
using Key = std::tuple<std::string, const FusedLinear*, std::string>;  // parent, fused, leaf
struct Group {
  ScaleUse use = ScaleUse::kGlobal;
  std::vector<ScalePart> parts;
};

bool HasBlockScales(FormatId format) {
  switch (format) {
    case FormatId::kNvfp4:
    case FormatId::kNvfp4WeightOnly:
    case FormatId::kNvfp4Awq:
    case FormatId::kNvfp4Svd:
    case FormatId::kW4A8Nvfp4Fp8:
    case FormatId::kNvfp4Pack:
      return true;
    default:
      return false;
  }
}

std::optional<ScaleUse> UseOf(const WeightUnit& unit, const StoredPart& part) {
  switch (part.role) {
    case Role::kGlobalScale:
      return HasBlockScales(unit.weight.format) ? std::optional(ScaleUse::kGlobal) : std::nullopt;
    case Role::kInputScale:
    case Role::kInputGlobalScale:
      return ScaleUse::kInput;
    case Role::kScale:
      return unit.weight.format == FormatId::kFp8PerTensor ? std::optional(ScaleUse::kTensor) : std::nullopt;
    default:
      return std::nullopt;
  }
}

// A container of experts, or one of them: "...experts.3".
bool IsExpert(std::string_view module) {
  const std::string_view leaf = SplitLeaf(module).leaf;
  return leaf == "experts" || IsDigits(leaf);
}

std::map<Key, Group> GroupsOf(const std::vector<WeightUnit>& units) {
  std::map<Key, Group> groups;
  for (size_t u = 0; u < units.size(); ++u) {
    const WeightUnit& unit = units[u];
    if (unit.role != UnitRole::kValue || unit.style != NameStyle::kModule || unit.weight.misfit != nullptr) continue;
    const FusedLinear* fused = FindFusedLinear(unit.module);
    if (fused == nullptr) continue;
    const auto [parent, leaf] = SplitLeaf(unit.module);
    const auto order = std::find(fused->parts.begin(), fused->parts.end(), leaf) - fused->parts.begin();
    for (size_t p = 0; p < unit.weight.parts.size(); ++p) {
      const StoredPart& part = unit.weight.parts[p];
      const auto use = UseOf(unit, part);
      if (!use) continue;
      Group& group = groups[{std::string(parent), fused, part.leaf}];
      group.use = *use;
      group.parts.push_back({u, static_cast<size_t>(order), unit.tensors[p]});
    }
  }
  std::erase_if(groups, [](const auto& group) { return group.second.parts.size() < 2; });
  for (auto& [key, group] : groups) {
    std::sort(group.parts.begin(), group.parts.end(),
              [](const ScalePart& a, const ScalePart& b) { return a.order < b.order; });
  }
  return groups;
}

// The bytes of tensors, read front to back; "" of one that is not small.
Result<std::map<uint32_t, std::string>> ReadTensors(const Checkpoint& checkpoint, std::vector<uint32_t> tensors) {
  std::sort(tensors.begin(), tensors.end());
  SmallTensorReader reader(checkpoint);
  std::map<uint32_t, std::string> bytes;
  for (const uint32_t index : tensors) bytes[index] = reader.Read(index).value_or("");
  if (!reader.errors().empty()) return reader.errors();
  return bytes;
}

// The first number of F32, BF16 or F16 bytes, for people.
float FirstNumber(DType dtype, const std::string& bytes) {
  if (dtype == DType::kF32 && bytes.size() >= 4) {
    float value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  if (dtype == DType::kBF16 && bytes.size() >= 2) {
    uint16_t half;
    std::memcpy(&half, bytes.data(), sizeof half);
    return std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
  }
  return 0;
}

std::string Linears(const UnequalScale& scale) { return fmt::format("{}", fmt::join(scale.fused->parts, ", ")); }

std::string_view WhatEnginesDo(ScaleUse use) {
  switch (use) {
    case ScaleUse::kGlobal:
      return "they take one of them for all, unless quantport repair puts them under one";
    case ScaleUse::kInput:
      return "they quantize the input under the largest";
    case ScaleUse::kTensor:
      return "they quantize the weights again under the largest";
  }
  return "";
}

std::string EngineNames(const FusedLinear& fused) {
  std::vector<std::string> names;
  for (const std::string& engine : fused.engines)
    names.push_back(engine == "vllm" ? "vLLM" : engine == "sglang" ? "SGLang" : engine);
  return fmt::format("{}", fmt::join(names, " and "));
}

}  // namespace

Result<std::vector<UnequalScale>> FindUnequalScales(const Checkpoint& checkpoint,
                                                    const std::vector<WeightUnit>& units) {
  const auto groups = GroupsOf(units);
  std::vector<uint32_t> tensors;
  for (const auto& [key, group] : groups) {
    for (const ScalePart& part : group.parts) tensors.push_back(part.tensor);
  }
  const auto bytes = ReadTensors(checkpoint, std::move(tensors));
  if (!bytes) return bytes.errors();
  std::vector<UnequalScale> unequal;
  bool any_shared = false;
  for (const auto& [key, group] : groups) {
    const auto info = [&](const ScalePart& part) -> const TensorInfo& {
      return checkpoint.table.tensors[part.tensor].info;
    };
    const ScalePart& first = group.parts[0];
    // Numbers of other types or shapes are another matter than their values.
    const bool alike = std::all_of(group.parts.begin(), group.parts.end(), [&](const ScalePart& part) {
      return info(part).dtype == info(first).dtype && info(part).shape == info(first).shape;
    });
    const bool equal = std::all_of(group.parts.begin(), group.parts.end(), [&](const ScalePart& part) {
      return bytes->at(part.tensor) == bytes->at(first.tensor);
    });
    any_shared |= alike && equal && group.use == ScaleUse::kGlobal;
    if (!alike || equal) continue;
    UnequalScale scale{std::get<1>(key), group.use, std::get<0>(key), std::get<2>(key), false, {}, {}};
    for (const ScalePart& part : group.parts) {
      scale.units.push_back(part.unit);
      scale.numbers.push_back(FirstNumber(info(part).dtype, bytes->at(part.tensor)));
    }
    unequal.push_back(std::move(scale));
  }
  for (UnequalScale& scale : unequal) scale.tolerated = !any_shared && !IsExpert(scale.parent);
  return unequal;
}

Errors ProblemsOf(const std::vector<UnequalScale>& scales, const std::vector<WeightUnit>& units) {
  Errors problems;
  for (const UnequalScale& scale : scales) {
    if (scale.use != ScaleUse::kGlobal || scale.tolerated) continue;
    std::string values;
    for (size_t i = 0; i < scale.units.size(); ++i) {
      values += fmt::format("{}{:.6g} of {}", i == 0 ? "" : ", ", scale.numbers[i],
                            SplitLeaf(units[scale.units[i]].module).leaf);
    }
    problems.push_back(
        {ErrorKind::kVerification,
         fmt::format("{} differs among linears that {} load as one, {}: {}; one of them is taken for all, and the "
                     "others' weights are wrong",
                     scale.leaf, EngineNames(*scale.fused), scale.fused->name, values),
         {},
         scale.parent,
         "quantport repair re-expresses them under a common scale"});
  }
  return problems;
}

std::vector<std::string> NotesOf(const std::vector<UnequalScale>& scales) {
  std::map<std::pair<const FusedLinear*, std::string>, Warning> notes;
  for (const UnequalScale& scale : scales) {
    if (scale.use == ScaleUse::kGlobal && !scale.tolerated) continue;
    Warning& note = notes[{scale.fused, scale.leaf}];
    note.text = fmt::format("{} differs among {}, which {} load as one: {}", scale.leaf, Linears(scale),
                            EngineNames(*scale.fused), WhatEnginesDo(scale.use));
    AddName(scale.parent, &note);
  }
  std::vector<std::string> texts;
  for (const auto& [key, note] : notes) texts.push_back(note.ToString());
  return texts;
}

Errors SiblingScaleProblems(const std::vector<WeightUnit>& units) {
  std::map<std::string, std::pair<std::vector<const WeightUnit*>, std::vector<const WeightUnit*>>> siblings;
  for (const WeightUnit& unit : units) {
    const auto [expert, linear] = SplitLeaf(unit.module);
    const auto [container, number] = SplitLeaf(expert);
    const bool nvfp4 = unit.weight.format == FormatId::kNvfp4 || unit.weight.format == FormatId::kNvfp4WeightOnly;
    if (!IsDigits(number) || !(nvfp4 || unit.weight.format == FormatId::kFp8PerTensor)) continue;
    auto& [with, without] = siblings[std::string(container) + "." + std::string(linear)];
    (unit.weight.Find("input_scale") != nullptr ? with : without).push_back(&unit);
  }
  Errors problems;
  for (const auto& [name, lists] : siblings) {
    if (lists.first.empty()) continue;
    for (const WeightUnit* unit : lists.second) {
      problems.push_back({ErrorKind::kMissingCompanion,
                          fmt::format("input_scale is missing, while {} sibling experts have one", lists.first.size()),
                          {},
                          unit->key,
                          {}});
    }
  }
  return problems;
}

}  // namespace quantport
