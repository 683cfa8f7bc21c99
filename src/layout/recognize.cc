#include "layout/recognize.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <unordered_map>
#include <unordered_set>

#include "base/text.h"
#include "layout/layouts.h"

namespace quantport {
namespace {

// Leaves that hold the values of a linear. compressed-tensors and GPTQ pack them under names of their own.
constexpr std::array<std::string_view, 3> kValueLeaves = {"weight", "weight_packed", "qweight"};

// Leaves that belong to the linear they stand beside, in the order they are written. formats.md of each producer:
// ModelOpt, fine-grained FP8, compressed-tensors, GPTQ/AutoAWQ, bitsandbytes, SVDQuant.
constexpr std::array<std::string_view, 27> kCompanionLeaves = {"weight_scale",
                                                               "weight_scale_2",
                                                               "weight_scale_inv",
                                                               "input_scale",
                                                               "input_scale_2",
                                                               "activation_scale",
                                                               "pre_quant_scale",
                                                               "weight_global_scale",
                                                               "input_global_scale",
                                                               "weight_zero_point",
                                                               "input_zero_point",
                                                               "weight_shape",
                                                               "weight_g_idx",
                                                               "output_scale",
                                                               "qzeros",
                                                               "scales",
                                                               "g_idx",
                                                               "SCB",
                                                               "weight_format",
                                                               "weight.absmax",
                                                               "weight.quant_map",
                                                               "weight.nested_absmax",
                                                               "weight.nested_quant_map",
                                                               "svdquant_lora_a",
                                                               "svdquant_lora_b",
                                                               "weight_quantizer._svdquant_lora_a",
                                                               "weight_quantizer._svdquant_lora_b"};

// Of those, leaves that are names of a model's own parameters too: companions only where a value stands beside them.
constexpr std::array<std::string_view, 7> kGenericLeaves = {
    "output_scale", "activation_scale", "pre_quant_scale", "scales", "g_idx", "SCB", "weight_format"};

// Of the KV cache, and of what attention computes in low precision besides, as ModelOpt, compressed-tensors, Quark and
// TensorRT-LLM write and vLLM reads them.
constexpr std::array<std::string_view, 19> kCacheLeaves = {"k_scale",
                                                           "v_scale",
                                                           "q_scale",
                                                           "kv_scale",
                                                           "prob_scale",
                                                           "k_zero_point",
                                                           "v_zero_point",
                                                           "q_zero_point",
                                                           "kv_zero_point",
                                                           "prob_output_scale",
                                                           "k_cache_scale",
                                                           "v_cache_scale",
                                                           "kv_cache_scale",
                                                           "k_global_scale",
                                                           "v_global_scale",
                                                           "q_global_scale",
                                                           "k_cache_scaling_factor",
                                                           "v_cache_scaling_factor",
                                                           "kv_cache_scaling_factor"};
constexpr std::array<std::string_view, 3> kCaches = {"k_cache", "v_cache", "kv_cache"};

template <size_t N>
bool Contains(const std::array<std::string_view, N>& leaves, std::string_view leaf) {
  return std::find(leaves.begin(), leaves.end(), leaf) != leaves.end();
}

// Scales of the KV cache belong to the attention, whatever projection's name they carry. ModelOpt's affine biases
// have names that models use for parameters (BEiT's v_bias), but only below the projections.
bool IsCacheLeaf(std::string_view module, std::string_view leaf) {
  if (Contains(kCacheLeaves, leaf)) return true;
  if (Contains(kCaches, SplitLeaf(module).leaf) && (leaf == "scale" || leaf == "zero_point")) return true;
  return (leaf == "k_bias" && module.ends_with("k_proj")) || (leaf == "v_bias" && module.ends_with("v_proj"));
}

// How a companion is joined to a parameter that is not called weight.
struct ParameterSuffix {
  std::string_view suffix;
  std::string_view leaf;
};
constexpr std::array<ParameterSuffix, 12> kParameterSuffixes = {{{"_weight_scale_inv", "weight_scale_inv"},
                                                                 {"_weight_scale_2", "weight_scale_2"},
                                                                 {"_weight_scale", "weight_scale"},
                                                                 {"_input_scale", "input_scale"},
                                                                 {"_pre_quant_scale", "pre_quant_scale"},
                                                                 {"_activation_scale", "activation_scale"},
                                                                 {"_scale_inv", "weight_scale_inv"},
                                                                 {".absmax", "weight.absmax"},
                                                                 {".quant_map", "weight.quant_map"},
                                                                 {".nested_absmax", "weight.nested_absmax"},
                                                                 {".nested_quant_map", "weight.nested_quant_map"},
                                                                 {"_bias", "bias"}}};

// gpt-oss stores the values of a parameter P in blocks, as P_blocks beside P_scales.
constexpr std::string_view kBlocksSuffix = "_blocks";
constexpr std::string_view kBlockScalesSuffix = "_scales";
// bitsandbytes ends the name of its state with the name of the format.
constexpr std::string_view kStateInfix = ".quant_state.";

// What a name is, by itself and the names beside it.
struct NameRole {
  enum Kind { kValue, kCompanion, kBias, kCache, kOwn } kind = kOwn;
  std::string key;   // of the value this name belongs to
  std::string leaf;  // its leaf within that value's unit
  NameStyle style = NameStyle::kModule;
  std::string suffix = {};  // StoredPart::suffix
  const LeafSpelling* spelling = nullptr;
};

// "<container>.experts.gate_proj.0" -> "<container>.experts.0.gate_proj": ModelOpt stored the experts of Qwen3-VL-MoE
// so for a while. Any other module as it is.
std::string ByExpert(std::string_view module) {
  constexpr std::array<std::string_view, 3> kProjections = {"gate_proj", "up_proj", "down_proj"};
  const auto [above, number] = SplitLeaf(module);
  const auto [container, projection] = SplitLeaf(above);
  if (!IsDigits(number) || !Contains(kProjections, projection) || SplitLeaf(container).leaf != "experts")
    return std::string(module);
  return fmt::format("{}.{}.{}", container, number, projection);
}

// Decides roles with a set of all names at hand.
class Namer {
 public:
  // `may_be_codes` says of the name at a place whether its tensor may hold codes; without it, names are all there is.
  using MayBeCodes = std::function<bool(size_t)>;
  explicit Namer(const std::vector<std::string_view>& names, MayBeCodes may_be_codes = {})
      : may_be_codes_(std::move(may_be_codes)) {
    names_.reserve(names.size());
    for (size_t i = 0; i < names.size(); ++i) names_.emplace(names[i], i);
  }

  NameRole Role(std::string_view name) const {
    const auto [module, leaf] = SplitLeaf(name);
    if (Contains(kValueLeaves, leaf))
      return {NameRole::kValue, JoinName(module, "weight"), std::string(leaf), NameStyle::kModule};
    if (Contains(kCompanionLeaves, leaf) && (!Contains(kGenericLeaves, leaf) || HasValue(module)))
      return {NameRole::kCompanion, JoinName(module, "weight"), std::string(leaf), NameStyle::kModule};
    if (const auto nested = NestedLeaf(name)) return *nested;
    if (const auto spelled = SpelledLeaf(name)) return *spelled;
    if (IsCacheLeaf(module, leaf))
      return {NameRole::kCache, JoinName(module, "weight"), std::string(leaf), NameStyle::kModule};
    if (leaf == "bias") return {NameRole::kBias, JoinName(module, "weight"), "bias", NameStyle::kModule};
    if (const auto blocks = BlocksRole(name)) return *blocks;
    if (const auto companion = ParameterCompanion(name)) return *companion;
    return {NameRole::kOwn, std::string(name), "", NameStyle::kParameter};
  }

 private:
  bool Has(const std::string& name) const { return names_.contains(name); }

  bool HasValue(std::string_view module) const {
    return std::any_of(kValueLeaves.begin(), kValueLeaves.end(),
                       [&](std::string_view leaf) { return Has(JoinName(module, leaf)); });
  }

  // A companion under another name. They are names of a model's own parameters too, so that codes must stand beside
  // them, and nothing under the format's name.
  std::optional<NameRole> SpelledLeaf(std::string_view name) const {
    for (const LeafSpelling& spelling : LeafSpellings()) {
      if (!Contains(kCompanionLeaves, spelling.leaf) || !name.ends_with(spelling.name)) continue;
      std::string_view module = name.substr(0, name.size() - spelling.name.size());
      if (!module.empty() && !module.ends_with('.')) continue;
      if (!module.empty()) module.remove_suffix(1);
      if (!HasCodes(module) || Has(JoinName(module, spelling.leaf))) continue;
      return NameRole{
          NameRole::kCompanion, JoinName(module, "weight"), spelling.leaf, NameStyle::kModule, {}, &spelling};
    }
    return std::nullopt;
  }

  bool HasCodes(std::string_view module) const {
    return std::any_of(kValueLeaves.begin(), kValueLeaves.end(), [&](std::string_view leaf) {
      const auto value = names_.find(JoinName(module, leaf));
      return value != names_.end() && (!may_be_codes_ || may_be_codes_(value->second));
    });
  }

  // Companions below a name: "<module>.weight.absmax" of bitsandbytes, "<module>.weight_quantizer._svdquant_lora_a".
  static std::optional<NameRole> NestedLeaf(std::string_view name) {
    for (const std::string_view parent : {".weight.", ".weight_quantizer."}) {
      const size_t hit = name.rfind(parent);
      if (hit == std::string_view::npos) continue;
      const std::string_view leaf = name.substr(hit + 1);
      if (!Contains(kCompanionLeaves, leaf) && !leaf.starts_with("weight.quant_state.")) continue;
      return NameRole{NameRole::kCompanion, JoinName(name.substr(0, hit), "weight"), std::string(leaf)};
    }
    return std::nullopt;
  }

  // A parameter stored under its own name or in blocks.
  bool HasParameter(const std::string& parameter) const { return Has(parameter) || HasBlocks(parameter); }

  bool HasBlocks(const std::string& parameter) const {
    return Has(parameter + std::string(kBlocksSuffix)) && Has(parameter + std::string(kBlockScalesSuffix));
  }

  std::optional<NameRole> BlocksRole(std::string_view name) const {
    for (const std::string_view suffix : {kBlocksSuffix, kBlockScalesSuffix}) {
      if (!name.ends_with(suffix)) continue;
      std::string parameter(name.substr(0, name.size() - suffix.size()));
      if (!HasBlocks(parameter)) continue;
      const bool value = suffix == kBlocksSuffix;
      return NameRole{value ? NameRole::kValue : NameRole::kCompanion, std::move(parameter),
                      std::string(suffix.substr(1)), NameStyle::kParameter};
    }
    return std::nullopt;
  }

  std::optional<NameRole> ParameterCompanion(std::string_view name) const {
    for (const auto& [suffix, leaf] : kParameterSuffixes) {
      if (!name.ends_with(suffix)) continue;
      std::string parameter(name.substr(0, name.size() - suffix.size()));
      // Companions of a "weight" stand beside it, not behind it.
      if (Contains(kValueLeaves, SplitLeaf(parameter).leaf) || !HasParameter(parameter)) continue;
      const bool joined_by_rule = suffix.substr(1) == leaf && suffix[0] == '_';
      return NameRole{leaf == "bias" ? NameRole::kBias : NameRole::kCompanion, std::move(parameter), std::string(leaf),
                      NameStyle::kParameter, joined_by_rule ? "" : std::string(suffix)};
    }
    const size_t hit = name.rfind(kStateInfix);
    if (hit == std::string_view::npos || !Has(std::string(name.substr(0, hit)))) return std::nullopt;
    return NameRole{NameRole::kCompanion, std::string(name.substr(0, hit)), "weight" + std::string(name.substr(hit)),
                    NameStyle::kParameter, std::string(name.substr(hit))};
  }

  std::unordered_map<std::string_view, size_t> names_;  // and their places
  MayBeCodes may_be_codes_;
};

// The tensors of one unit while they are being collected.
struct DraftPart {
  std::string leaf;
  std::string suffix;
  const LeafSpelling* spelling = nullptr;
  uint32_t tensor = 0;
};
struct Draft {
  std::vector<DraftPart> values;
  std::vector<DraftPart> companions;
  NameStyle style = NameStyle::kModule;
};

size_t CompanionOrder(std::string_view leaf) {
  return static_cast<size_t>(std::find(kCompanionLeaves.begin(), kCompanionLeaves.end(), leaf) -
                             kCompanionLeaves.begin());
}

StoredPart MakePart(const DraftPart& draft, const TensorTable& table) {
  const TensorInfo& info = table.tensors[draft.tensor].info;
  return {draft.leaf, WholeTensor(draft.tensor, info.dtype, info.shape), {}, draft.suffix, draft.spelling};
}

// A bias is looked up by its own name, and follows its weight only where that is cut or fused; a cache scale has no
// name of its own in any mapping.
WeightUnit FollowerUnit(std::string_view name, NameRole role, uint32_t tensor, const TensorTable& table) {
  const bool bias = role.kind == NameRole::kBias;
  WeightUnit unit{bias && role.style == NameStyle::kModule ? JoinName(SplitLeaf(role.key).module, "bias")
                  : bias                                   ? std::string(name)
                                                           : role.key,
                  role.key,
                  std::string(SplitLeaf(name).module),
                  bias ? UnitRole::kBias : UnitRole::kCacheScale,
                  role.style,
                  {},
                  {tensor}};
  unit.weight.parts.push_back(MakePart({std::move(role.leaf), std::move(role.suffix), nullptr, tensor}, table));
  FillPlainLayout(&unit.weight);
  return unit;
}

Error Missing(const std::string& key, std::string message) {
  return Error{ErrorKind::kMissingCompanion,
               std::move(message),
               {},
               key,
               "the export is incomplete; a server would load it and compute nonsense"};
}

// Builds the unit of a value with its companions, or says what is missing.
Result<WeightUnit> BuildUnit(const std::string& key, const Draft& draft, const TensorTable& table,
                             const RecognizeOptions& options, PartsMemo* memo) {
  if (draft.values.empty())
    return Missing(key, fmt::format("{} is stored without its weight", draft.companions[0].leaf));
  if (draft.values.size() > 1) {
    return Error{ErrorKind::kNameCollision,
                 fmt::format("both {} and {} are stored for one linear", draft.values[0].leaf, draft.values[1].leaf),
                 {},
                 key,
                 {}};
  }
  const std::string& stored = table.tensors[draft.values[0].tensor].info.name;
  const std::string_view module = SplitLeaf(draft.style == NameStyle::kModule ? stored : key).module;
  WeightUnit unit{key, key, std::string(module), UnitRole::kValue, draft.style, {}, {}};
  auto companions = draft.companions;
  std::sort(companions.begin(), companions.end(), [](const auto& a, const auto& b) {
    return std::pair(CompanionOrder(a.leaf), std::string_view(a.leaf)) <
           std::pair(CompanionOrder(b.leaf), std::string_view(b.leaf));
  });
  companions.insert(companions.begin(), draft.values[0]);
  unit.weight.parts.reserve(companions.size());
  unit.tensors.reserve(companions.size());
  for (const DraftPart& part : companions) {
    unit.weight.parts.push_back(MakePart(part, table));
    unit.tensors.push_back(part.tensor);
  }
  if (auto missing = MissingCompanion(unit.weight, key, options)) return Missing(key, *missing);
  FillLayout(&unit.weight, key, options, memo);
  return unit;
}

// What a quantizer or an adapter leaves beside a weight stands at most so deep below its module:
// "<linear>.lora_A.default.weight".
constexpr int kStrayDepth = 3;

// Values that stand below a module with a matrix of its own belong to that module, unless the mapping has a name for
// them (plan/group_builder.cc). Beside codes they say that the codes are not what they look like.
void FindStrays(std::vector<WeightUnit>* units) {
  std::unordered_map<std::string_view, size_t> matrices;  // by module
  for (size_t i = 0; i < units->size(); ++i) {
    const WeightUnit& unit = (*units)[i];
    if (unit.role == UnitRole::kValue && unit.style == NameStyle::kModule && unit.weight.shape.size() >= 2)
      matrices.emplace(unit.module, i);
  }
  for (WeightUnit& unit : *units) {
    if (unit.role != UnitRole::kValue) continue;
    std::string_view above = unit.style == NameStyle::kModule ? std::string_view(unit.module) : unit.key;
    for (int depth = 0; depth < kStrayDepth && !above.empty(); ++depth) {
      above = SplitLeaf(above).module;
      const auto found = above.empty() ? matrices.end() : matrices.find(above);
      if (found == matrices.end()) continue;
      WeightUnit& owner = (*units)[found->second];
      unit.owner = owner.key;
      if (owner.weight.format != FormatId::kPlain) AddStray(unit.key.substr(owner.module.size() + 1), &owner.weight);
      break;
    }
  }
}

}  // namespace

Result<std::vector<WeightUnit>> RecognizeUnits(const TensorTable& table, const RecognizeOptions& options) {
  std::vector<std::string_view> names;
  names.reserve(table.tensors.size());
  for (const StoredTensor& tensor : table.tensors) names.push_back(tensor.info.name);
  const Namer namer(names, [&](size_t i) { return !kNumbers.Has(table.tensors[i].info.dtype); });

  // Values with companions are built when all of their tensors are known; their place is that of the first tensor.
  std::unordered_map<std::string, size_t> draft_of;
  std::vector<std::pair<const std::string*, Draft>> drafts;  // with their keys in draft_of
  struct Slot {
    size_t draft = SIZE_MAX;
    std::optional<WeightUnit> unit;
  };
  std::vector<Slot> slots;
  slots.reserve(names.size());
  draft_of.reserve(names.size());
  for (uint32_t i = 0; i < table.tensors.size(); ++i) {
    NameRole role = namer.Role(names[i]);
    if (role.style == NameStyle::kModule && role.kind != NameRole::kOwn)
      role.key = JoinName(ByExpert(SplitLeaf(role.key).module), SplitLeaf(role.key).leaf);
    if (role.kind == NameRole::kBias || role.kind == NameRole::kCache) {
      slots.push_back({SIZE_MAX, FollowerUnit(names[i], std::move(role), i, table)});
      continue;
    }
    const auto [it, fresh] = draft_of.emplace(std::move(role.key), drafts.size());
    if (fresh) {
      drafts.emplace_back(&it->first, Draft{{}, {}, role.style});
      slots.push_back({it->second, std::nullopt});
    }
    Draft& draft = drafts[it->second].second;
    (role.kind == NameRole::kCompanion ? draft.companions : draft.values)
        .push_back({std::move(role.leaf), std::move(role.suffix), role.spelling, i});
  }

  std::vector<WeightUnit> units;
  units.reserve(slots.size());
  Errors errors;
  PartsMemo memo;
  for (Slot& slot : slots) {
    if (slot.unit) {
      units.push_back(std::move(*slot.unit));
      continue;
    }
    auto unit = BuildUnit(*drafts[slot.draft].first, drafts[slot.draft].second, table, options, &memo);
    if (unit) {
      units.push_back(std::move(*unit));
    } else {
      errors.insert(errors.end(), unit.errors().begin(), unit.errors().end());
    }
  }
  if (!errors.empty()) return errors;
  FindStrays(&units);
  return units;
}

bool WeightUnit::IsBelowProjection() const {
  return style == NameStyle::kModule && role != UnitRole::kCacheScale && module != SplitLeaf(key).module;
}

NamedValues FindValues(const std::vector<std::string>& names) {
  const std::vector<std::string_view> views(names.begin(), names.end());
  const Namer namer(views);
  NamedValues found;
  for (const std::string& name : names) {
    NameRole role = namer.Role(name);
    if (role.kind == NameRole::kOwn || role.kind == NameRole::kBias) found.keys.push_back(name);
    if (role.kind == NameRole::kCompanion && role.style == NameStyle::kModule)
      found.leaves.try_emplace(std::move(role.leaf), role.spelling);
    if (role.kind == NameRole::kValue) found.keys.push_back(std::move(role.key));
  }
  std::sort(found.keys.begin(), found.keys.end());
  found.keys.erase(std::unique(found.keys.begin(), found.keys.end()), found.keys.end());
  return found;
}

std::vector<std::string> ValueKeys(const std::vector<std::string>& names) { return FindValues(names).keys; }

std::string PartTensorName(std::string_view key, NameStyle style, std::string_view leaf, std::string_view suffix) {
  if (style == NameStyle::kModule) return JoinName(SplitLeaf(key).module, leaf);
  if (leaf.empty()) return std::string(key);
  return suffix.empty() ? fmt::format("{}_{}", key, leaf) : fmt::format("{}{}", key, suffix);
}

}  // namespace quantport
