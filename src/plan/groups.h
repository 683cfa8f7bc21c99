// Which units of an export go through one transform together, and what their results are called.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "mapping/inverse.h"
#include "mapping/renamer.h"
#include "mapping/targets.h"
#include "plan/conversion.h"

namespace quantport {

// The linears that gate_up_proj holds side by side, as producers call them once expanded: ModelOpt, llm-compressor and
// transformers before v5 agree on these names.
inline constexpr std::array<std::string_view, 2> kGateUpLinears = {"gate_proj", "up_proj"};

// The place of an already expanded expert in the stacked parameter that transformers has: expert `index`, part `part`
// of `parts` along the output dimension (gate_up_proj is stored as gate_proj and up_proj).
struct ExpertPiece {
  uint64_t index = 0;
  uint64_t part = 0;
  uint64_t parts = 1;
};

struct GroupInput {
  size_t unit = 0;
  std::optional<ExpertPiece> piece;
  std::optional<uint64_t> number = {};  // in a list that the converter stacks
};

// Units that become hub tensors together: one for a rename, all parts of one converter application otherwise.
struct Group {
  const Transform* converter = nullptr;         // in the direction of the conversion; null for a rename
  size_t targets = 1;                           // tensors (or lists of them) that come out
  std::vector<std::vector<GroupInput>> inputs;  // for each source pattern of the converter

  // Names of the results: by rule a template, by reference the hub's own.
  std::optional<TargetTemplate> rule_template;
  const std::vector<std::string>* rule_targets = nullptr;
  std::string rule_name;  // for a rename, and in messages
  const Origin* origin = nullptr;

  // The hub key of result `target`, entry `index` of it where there are several.
  Result<std::string> Name(size_t target, std::optional<uint64_t> index) const;
};

// True for operations that take stacked experts apart.
bool SplitsExperts(const std::vector<Operation>& operations);

// True for operations that begin with a list of tensors for each pattern.
bool TakesLists(const std::vector<Operation>& operations);

// How the units' keys are looked up: the names of transformers' own parameters.
struct EngineKey {
  std::string key;
  std::optional<ExpertPiece> piece;
};

// Finds for "<container>.<i>.gate_proj.weight" the stacked parameter it is a piece of, where the mapping has one.
class ExpertLocator {
 public:
  // `is_fused` tells of a parameter's name whether the hub keeps such experts in one tensor; what it says yes to is
  // located as well. Empty: experts are left as they are stored.
  explicit ExpertLocator(const Renamer& reverse, std::function<bool(const std::string&)> is_fused = {})
      : reverse_(reverse), is_fused_(std::move(is_fused)) {}
  EngineKey Locate(const WeightUnit& unit);

 private:
  bool IsStackedParameter(const std::string& key);

  const Renamer& reverse_;
  std::function<bool(const std::string&)> is_fused_;
  std::unordered_map<std::string, bool> known_;
};

// Names by rule for a set of engine keys; every key is renamed once, in dot-natural order.
class RuleNames {
 public:
  static Result<RuleNames> Create(std::vector<Transform> transforms, Renamer::Direction direction,
                                  const std::vector<EngineKey>& keys);
  const RenamedKey& Find(const std::string& key) const { return names_.at(key); }
  bool AnyName(const std::function<bool(const std::string& name)>& test) const;
  void ForEachName(const std::function<void(const std::string& key, std::string* name)>& change);
  const Renamer& renamer() const { return *renamer_; }
  const std::vector<Transform>& transforms() const { return *transforms_; }

 private:
  std::unique_ptr<std::vector<Transform>> transforms_;
  std::unique_ptr<Renamer> renamer_;
  std::unordered_map<std::string, RenamedKey> names_;
};

}  // namespace quantport
