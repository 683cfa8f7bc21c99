#include "verify/compare_claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include "base/checked.h"
#include "base/text.h"
#include "dialect/claims.h"
#include "layout/misfits.h"
#include "verify/exclude_lists.h"

namespace quantport {
namespace {

// ---- findings: what the tensors are ------------------------------------------------------------------------------

bool IsPlainFloat(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF32; }

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Tables that are looked up, and not multiplied with.
bool IsTableName(std::string_view name) {
  constexpr std::array<std::string_view, 4> kNames = {"wte", "wpe", "shared", "tok_emb"};
  return Contains(name, "embed") || Contains(name, "position") || name.ends_with("_emb") || Contains(name, "rel_pos") ||
         Contains(name, "relative_attention_bias") || std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

ModuleClass ClassOf(const WeightUnit& unit) {
  // What is quantized is a linear to its config, experts in one tensor as well.
  if (IsKnownQuantized(unit)) return ModuleClass::kLinear;
  const size_t rank = unit.weight.shape.size();
  const std::string_view name = SplitLeaf(unit.module).leaf;
  if (unit.style == NameStyle::kParameter)
    return rank == 3 && name == "experts" ? ModuleClass::kExperts : ModuleClass::kOther;
  if (rank < 2 || SplitLeaf(unit.key).leaf != "weight" || Contains(name, "norm")) return ModuleClass::kOther;
  if (rank == 2) return IsTableName(name) ? ModuleClass::kEmbedding : ModuleClass::kLinear;
  return ModuleClass::kConvolution;
}

bool IsPlainMatrix(const WeightUnit& unit) {
  return unit.weight.format == FormatId::kPlain && unit.weight.shape.size() >= 2 &&
         IsPlainFloat(unit.weight.parts[0].array.dtype);
}

const StoredPart* FindScale(const LogicalWeight& weight) {
  const auto it = std::find_if(weight.parts.begin(), weight.parts.end(),
                               [](const StoredPart& part) { return part.role == Role::kScale; });
  return it == weight.parts.end() ? nullptr : &*it;
}

uint64_t Elements(std::span<const uint64_t> shape) {
  return std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies());
}

// How many values share a scale: some inputs of a row, a row, or several rows.
struct Groups {
  const StoredPart* scale;
  uint64_t inputs;
  uint64_t group;
};
std::optional<Groups> FindGroups(const LogicalWeight& weight) {
  const StoredPart* scale = FindScale(weight);
  if (scale == nullptr || weight.shape.size() < 2) return std::nullopt;
  const uint64_t inputs = weight.shape.back();
  switch (weight.variant.granularity) {
    case Granularity::kTensor:
      return Groups{scale, inputs, inputs * weight.shape[weight.shape.size() - 2]};
    case Granularity::kRows:
      return Groups{scale, inputs, inputs};
    case Granularity::kGroups:
      // The coarsest axis: experts may have their inputs before their outputs.
      for (size_t dim = scale->axes.size(); dim-- > 0;) {
        const auto& axis = scale->axes[dim];
        if (axis && axis->granularity > 1) return Groups{scale, weight.shape[dim], axis->granularity};
      }
      return std::nullopt;
    case Granularity::kColumns:
    case Granularity::kTiles:
    case Granularity::kHalves:
      break;
  }
  return std::nullopt;
}

// Whether a group size that the config states is meant for the scales of this weight. Where no word says what shares
// one, it may be of activations, or left from another algorithm.
bool SaysGroups(const WeightScheme& scheme, const LogicalWeight& weight) {
  return scheme.group_size > 0 && scheme.shares.value_or(weight.variant.granularity) == Granularity::kGroups;
}

// GPTQ's last group may be of fewer inputs; all others have whole groups only.
bool HasGroupsOf(uint64_t size, const Groups& groups, FormatId format) {
  if (format != FormatId::kGptq) return groups.group == size;
  return CeilDiv(groups.inputs, size) == CeilDiv(groups.inputs, groups.group);
}

// The width of the integers of a packed weight, or 0.
uint64_t PackedBits(const LogicalWeight& weight) {
  if (weight.format != FormatId::kGptq && weight.format != FormatId::kPackQuantized) return 0;
  const auto& axis = weight.parts[0].axes.back();
  return axis && axis->whole.empty() ? 32 * axis->multiple / axis->granularity : 0;
}

std::string ShapeText(const std::vector<uint64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// The modules with weights, and the units that they are.
struct ModuleFindings {
  std::vector<const WeightUnit*> units;
  std::vector<NamedModule> modules;
};

ModuleFindings FindModules(const std::vector<WeightUnit>& units) {
  ModuleFindings findings;
  for (const WeightUnit& unit : units) {
    if (unit.role != UnitRole::kValue) continue;
    findings.units.push_back(&unit);
    findings.modules.push_back({unit.module, ClassOf(unit)});
  }
  return findings;
}

// ---- one config file ---------------------------------------------------------------------------------------------

class ClaimCheck {
 public:
  ClaimCheck(std::string_view file, const ConfigClaims& claims, const ModuleFindings& findings,
             const MatchedClaims& matched, std::vector<Difference>* differences)
      : file_(file), claims_(claims), findings_(findings), matched_(matched), differences_(*differences) {}

  void Run() {
    for (size_t m = 0; m < findings_.units.size(); ++m) {
      const WeightUnit& unit = *findings_.units[m];
      const Claim& claim = matched_.modules[m];
      if (IsKnownQuantized(unit)) {
        CheckQuantized(unit, claim);
      } else if (IsPlainMatrix(unit)) {
        CheckPlain(unit, claim, findings_.modules[m].kind);
      } else {
        CheckUnknown(unit, claim);
      }
    }
  }

 private:
  // A container of experts is one module, however many parameters it has.
  void Add(DifferenceKind kind, std::string message, const std::string& tensor) {
    if (added_.emplace(kind, tensor).second)
      differences_.push_back({kind, std::string(file_), tensor, std::move(message)});
  }

  const WeightScheme& SchemeOf(const Claim& claim) const { return claims_.schemes[claim.scheme]; }

  void CheckQuantized(const WeightUnit& unit, const Claim& claim) {
    switch (claim.says) {
      case Says::kNothing:
        return;
      case Says::kPlain:
        if (claim.rule != nullptr) {
          Add(DifferenceKind::kExcluded,
              fmt::format("the exclude entry \"{}\" covers this module, whose tensors are quantized",
                          claim.rule->entry),
              unit.module);
        } else {
          Add(DifferenceKind::kNotClaimed, "its tensors are quantized, but no target or layer of the config names it",
              unit.module);
        }
        return;
      case Says::kQuantized:
      case Says::kEither:
        CheckScheme(unit, SchemeOf(claim));
        return;
    }
  }

  void CheckScheme(const WeightUnit& unit, const WeightScheme& scheme) {
    const FormatId format = unit.weight.format;
    if (!scheme.formats.empty() &&
        std::find(scheme.formats.begin(), scheme.formats.end(), format) == scheme.formats.end()) {
      Add(DifferenceKind::kFormat,
          fmt::format("the config says {}, the tensors are {}", scheme.name, FormatName(format)), unit.key);
    }
    if (scheme.tile) CheckTile(unit, *scheme.tile);
    if (const auto groups = FindGroups(unit.weight)) CheckGroups(unit, scheme, *groups);
    const uint64_t bits = PackedBits(unit.weight);
    if (bits > 0 && scheme.bits > 0 && bits != scheme.bits) {
      Add(DifferenceKind::kBits,
          fmt::format("the config says {} bits, the tensors hold values of {}", scheme.bits, bits), unit.key);
    }
  }

  void CheckGroups(const WeightUnit& unit, const WeightScheme& scheme, const Groups& groups) {
    const bool rows = scheme.shares == Granularity::kTensor || scheme.shares == Granularity::kRows;
    if (SaysGroups(scheme, unit.weight) && !HasGroupsOf(scheme.group_size, groups, unit.weight.format)) {
      Add(DifferenceKind::kGroupSize,
          fmt::format("group_size is {}, but {} has one scale for {} values", scheme.group_size, groups.scale->leaf,
                      groups.group),
          unit.key);
    } else if (rows && groups.group < groups.inputs) {
      Add(DifferenceKind::kGroupSize,
          fmt::format("the config says one scale for a row or more, but {} has one for {} values", groups.scale->leaf,
                      groups.group),
          unit.key);
    }
  }

  void CheckPlain(const WeightUnit& unit, const Claim& claim, ModuleClass kind) {
    if (claim.says != Says::kQuantized || kind == ModuleClass::kOther) return;
    const WeightScheme& scheme = SchemeOf(claim);
    if (claim.rule != nullptr && claim.rule->matching != Matching::kClass) {
      if (claim.rule->matching == Matching::kBelow && kind != ModuleClass::kLinear && kind != ModuleClass::kExperts)
        return;
      Add(DifferenceKind::kStoredPlain,
          fmt::format("\"{}\" of the config says that this module is quantized, but its tensors are not",
                      claim.rule->entry),
          unit.module);
      return;
    }
    // What is no whole number of tiles is left alone by the producer.
    const auto& shape = unit.weight.shape;
    if (scheme.tile && (shape[shape.size() - 2] % (*scheme.tile)[0] != 0 || shape.back() % (*scheme.tile)[1] != 0))
      return;
    Add(DifferenceKind::kStoredPlain,
        fmt::format("the config's {} covers this module, which is stored as {}, and no entry leaves it out",
                    scheme.name.empty() ? claims_.method : scheme.name, DTypeName(unit.weight.parts[0].array.dtype)),
        unit.module);
  }

  // Scales that the stated tile does not give; those of several dimensions are of no format then.
  void CheckUnknown(const WeightUnit& unit, const Claim& claim) {
    if (claim.says != Says::kQuantized && claim.says != Says::kEither) return;
    const auto& tile = SchemeOf(claim).tile;
    const StoredPart* scale = unit.weight.Find("weight_scale_inv");
    const bool grid = unit.weight.format == FormatId::kUnrecognized && tile && scale != nullptr &&
                      scale->array.shape.size() == unit.weight.shape.size() && unit.weight.shape.size() >= 2 &&
                      unit.weight.parts[0].array.dtype == DType::kF8E4M3;
    if (grid) AddTile(unit, *tile, *scale);
  }

  void CheckTile(const WeightUnit& unit, const std::array<uint64_t, 2>& tile) {
    const auto& shape = unit.weight.shape;
    const bool other = unit.weight.format == FormatId::kFp8PerTensor ||
                       unit.weight.format == FormatId::kFp8PerChannel || unit.weight.format == FormatId::kFp8Group;
    if (!other) return;
    const StoredPart* scale = FindScale(unit.weight);
    const uint64_t tiles = CeilDiv(shape[shape.size() - 2], tile[0]) * CeilDiv(shape.back(), tile[1]);
    if (Elements(scale->array.shape) != tiles * Elements(std::span(shape).first(shape.size() - 2)))
      AddTile(unit, tile, *scale);
  }

  void AddTile(const WeightUnit& unit, const std::array<uint64_t, 2>& tile, const StoredPart& scale) {
    Add(DifferenceKind::kTile,
        fmt::format("weight_block_size is {}, which does not make scales of shape {} of a weight of shape {}",
                    ShapeText({tile[0], tile[1]}), ShapeText(scale.array.shape), ShapeText(unit.weight.shape)),
        unit.key);
  }

  std::string_view file_;
  const ConfigClaims& claims_;
  const ModuleFindings& findings_;
  const MatchedClaims& matched_;
  std::vector<Difference>& differences_;
  std::set<std::pair<DifferenceKind, std::string>> added_;
};

// ---- all files ---------------------------------------------------------------------------------------------------

Errors InFile(const std::string& file, Errors errors) {
  for (Error& error : errors) error.file = file;
  return errors;
}

Difference OtherNamespace(const std::string& file, size_t entries) {
  return {DifferenceKind::kOtherNamespace,
          file,
          {},
          fmt::format("none of the {} exclude entries matches any module: they are in another namespace", entries)};
}

// What two files say of one module can't both be right.
bool Disagree(const Claim& a, const Claim& b) {
  if (a.says == Says::kNothing || b.says == Says::kNothing) return false;
  return (a.says == Says::kPlain) != (b.says == Says::kPlain);
}

void CheckAgreement(const ConfigFiles& configs, const ModuleFindings& findings,
                    const std::vector<MatchedClaims>& matched, std::vector<Difference>* differences) {
  if (configs.claims.size() < 2) return;
  const auto first = configs.claims.begin();
  size_t index = 1;
  for (auto other = std::next(first); other != configs.claims.end(); ++other, ++index) {
    const NamedModule* example = nullptr;
    size_t count = 0;
    for (size_t m = 0; m < findings.modules.size(); ++m) {
      if (!Disagree(matched[0].modules[m], matched[index].modules[m])) continue;
      if (count++ == 0) example = &findings.modules[m];
    }
    if (count == 0) continue;
    differences->push_back(
        {DifferenceKind::kConfigsDisagree, first->first, std::string(example->name),
         fmt::format("{} and {} exclude different modules, {} of them", first->first, other->first, count)});
  }
}

// Where one file describes a part of the model for another format, the other file's word counts for its layers alone.
void DropUnsaid(const ConfigFiles& configs, std::vector<MatchedClaims>* matched) {
  const auto partial =
      std::find_if(configs.claims.begin(), configs.claims.end(), [](const auto& file) { return file.second.partial; });
  if (partial == configs.claims.end()) return;
  size_t index = 0;
  for (const auto& [file, claims] : configs.claims) {
    MatchedClaims& own = (*matched)[index++];
    if (claims.partial) continue;
    for (Claim& claim : own.modules) {
      if (claim.rule == nullptr || claim.says == Says::kPlain) claim.says = Says::kNothing;
    }
  }
}

// Quantized otherwise than the config says.
bool IsOfStorage(DifferenceKind kind) {
  return kind == DifferenceKind::kFormat || kind == DifferenceKind::kGroupSize || kind == DifferenceKind::kBits ||
         kind == DifferenceKind::kTile;
}

bool IsContradiction(DifferenceKind kind) {
  return IsOfStorage(kind) || kind == DifferenceKind::kExcluded || kind == DifferenceKind::kNotClaimed;
}

// How a warning of a kind is called, and put for many modules.
struct Wording {
  std::string_view id;
  std::string_view text;
  std::string_view remedy;
};
Wording WordingOf(DifferenceKind kind) {
  constexpr std::string_view kLoads = "inference engines read the tensors as the config says; mend the config";
  switch (kind) {
    case DifferenceKind::kStoredPlain:
      return {"config-stored-plain", "modules are stored unquantized that the config says are quantized",
              "engines build them quantized and fail on their shape: name them in the exclude list"};
    case DifferenceKind::kExcluded:
      return {"config-excluded", "modules are stored quantized that an exclude entry covers", kLoads};
    case DifferenceKind::kNotClaimed:
      return {"config-not-claimed", "modules are stored quantized that no target or layer of the config names", kLoads};
    case DifferenceKind::kFormat:
      return {"config-format", "modules are stored in another format than the config says", kLoads};
    case DifferenceKind::kGroupSize:
      return {"config-group-size", "modules have scales for groups of another size than the config says", kLoads};
    case DifferenceKind::kBits:
      return {"config-bits", "modules hold integers of another width than the config says", kLoads};
    case DifferenceKind::kTile:
      return {"config-tile", "modules have a grid of scales that the config's tile does not give", kLoads};
    case DifferenceKind::kConfigsDisagree:
      return {"config-files-disagree", "config files exclude different modules", "make both say the same"};
    case DifferenceKind::kOtherNamespace:
      return {"config-namespace", "no exclude entry matches any module: the list is in another namespace",
              "give the entries the names that the tensors have"};
  }
  return {};
}

}  // namespace

Result<ClaimComparison> CompareClaims(const ConfigFiles& configs, const std::vector<WeightUnit>& units,
                                      MatchBudget* budget, const std::set<std::string>& tied) {
  ClaimComparison comparison;
  if (configs.claims.empty()) return comparison;
  const ModuleFindings findings = FindModules(units);
  std::vector<NamedModule> unstored;
  for (const std::string& weight : tied) unstored.push_back({SplitLeaf(weight).module, ModuleClass::kLinear});
  std::vector<MatchedClaims> matched;
  for (const auto& [file, claims] : configs.claims) {
    auto matches = MatchClaims(claims, findings.modules, budget);
    if (!matches) return InFile(file, std::move(matches.errors()));
    auto dead = DeadEntries(claims, *matches, findings.modules, budget);
    if (!dead) return InFile(file, std::move(dead.errors()));
    if (IsInOtherNamespace(claims, *dead)) comparison.differences.push_back(OtherNamespace(file, dead->size()));
    dead = WithoutModule(std::move(*dead), unstored, budget);
    if (!dead) return InFile(file, std::move(dead.errors()));
    if (!dead->empty()) comparison.dead_entries.emplace(file, std::move(*dead));
    matched.push_back(std::move(*matches));
  }
  DropUnsaid(configs, &matched);
  size_t index = 0;
  for (const auto& [file, claims] : configs.claims)
    ClaimCheck(file, claims, findings, matched[index++], &comparison.differences).Run();
  CheckAgreement(configs, findings, matched, &comparison.differences);
  return comparison;
}

void NoteContradictions(const std::vector<Difference>& differences, std::vector<WeightUnit>* units) {
  std::map<std::string_view, std::string_view> texts;
  for (const Difference& difference : differences) {
    if (IsOfStorage(difference.kind)) texts.emplace(difference.tensor, difference.message);
  }
  if (texts.empty()) return;
  for (WeightUnit& unit : *units) {
    if (const auto text = texts.find(unit.key); text != texts.end() && IsKnownQuantized(unit))
      unit.weight.misfit = std::make_shared<const Misfit>(Misfit{unit.weight.format, std::string(text->second)});
  }
}

Errors ProblemsOf(const std::vector<Difference>& differences) {
  const auto hint = [](DifferenceKind kind) -> std::string_view {
    if (kind == DifferenceKind::kConfigsDisagree || kind == DifferenceKind::kOtherNamespace) return {};
    return "servers read the tensors as the config says";
  };
  Errors errors;
  for (const Difference& difference : differences) {
    errors.push_back({ErrorKind::kInvalidConfig, difference.message, difference.file, difference.tensor,
                      std::string(hint(difference.kind))});
  }
  return errors;
}

Errors ContradictionsOf(const std::vector<Difference>& differences) {
  std::vector<Difference> contradictions;
  std::copy_if(differences.begin(), differences.end(), std::back_inserter(contradictions),
               [](const Difference& difference) { return IsContradiction(difference.kind); });
  return ProblemsOf(contradictions);
}

std::vector<Warning> WarningsOf(const std::vector<Difference>& differences, bool interpreted) {
  std::map<DifferenceKind, Warning> warnings;
  std::map<DifferenceKind, std::string_view> files;
  for (const Difference& difference : differences) {
    if (interpreted && IsContradiction(difference.kind)) continue;
    // Both files mostly say the same; their modules are counted once.
    const auto [file, fresh] = files.emplace(difference.kind, difference.file);
    if (fresh) {
      const Wording wording = WordingOf(difference.kind);
      warnings[difference.kind] = {std::string(wording.id),
                                   fmt::format("{}: {}", difference.file, wording.text),
                                   0,
                                   {},
                                   std::string(wording.remedy)};
    }
    if (file->second == difference.file && !difference.tensor.empty())
      AddName(difference.tensor, &warnings[difference.kind]);
  }
  std::vector<Warning> list;
  for (auto& [kind, warning] : warnings) list.push_back(std::move(warning));
  return list;
}

std::vector<std::string> DeadEntryNotes(const ClaimComparison& comparison) {
  std::vector<std::string> notes;
  for (const auto& [file, entries] : comparison.dead_entries) {
    Warning dead;
    for (const std::string& entry : entries) AddName(entry, &dead);
    dead.text = fmt::format("{}: exclude entries that match no module that is stored here", file);
    notes.push_back(dead.ToString());
  }
  return notes;
}

}  // namespace quantport
