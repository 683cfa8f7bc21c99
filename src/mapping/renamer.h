// Renames whole names through a list of transforms, in the load or the save direction.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mapping/pattern.h"
#include "mapping/transform.h"
#include "quantport/error.h"

namespace quantport {

struct RenamedKey {
  std::string name;    // after every transform; with "*" where a converter's target has one
  int converter = -1;  // index of the WeightConverter that matched, in the order of application; -1 for none
  size_t source = 0;   // which of the converter's source patterns
  // What its "*" stood for, where that is a number: the place in a list that the converter stacks.
  std::optional<uint64_t> number = {};
  std::vector<uint32_t> fired;  // transforms that matched, as indices into the list given to the constructor
};

// One transform at work on a name.
struct RenameStep {
  uint32_t transform = 0;  // index into the list given to Create
  std::string pattern;     // the source that matched, in this direction
  std::string before;
  std::string after;
};

// transformers' rename_source_key: loading applies all renamings in order and then at most one converter; saving
// applies the reversed list, at most one converter first and then all renamings.
class Renamer {
 public:
  enum class Direction { kLoad, kSave };

  // Errors: kInvalidMapping for every transform that does not compile.
  static Result<Renamer> Create(std::span<const Transform> transforms, Direction direction);

  // Names must come in dot-natural order, over all shards: a GroupWeightRename remembers that it saw its guard.
  RenamedKey Rename(std::string_view key);

  // Rename without changing or depending on the guards' state of later calls, and without the transforms in `skip`
  // (indices as in `fired`).
  RenamedKey Probe(std::string_view key, std::span<const uint32_t> skip = {}) const;

  // What each transform that fires does to the name, in order.
  std::vector<RenameStep> Trace(std::string_view key) const;

  // The converter of a RenamedKey, in this direction (sources and operations already reversed when saving).
  const CompiledTransform& converter(int index) const { return converters_[static_cast<size_t>(index)].compiled; }
  // Its index in the list given to Create.
  uint32_t origin(int converter_index) const { return converters_[static_cast<size_t>(converter_index)].origin; }

  // True once a pattern ran into its work limit on some name.
  bool limit_exceeded() const { return limit_exceeded_; }

 private:
  struct Entry {
    CompiledTransform compiled;
    uint32_t origin;
    bool active = false;  // a GroupWeightRename that saw its guard
  };

  static RenameStep Step(const Entry& entry, const CompiledTransform::Match& match, const std::string& before);
  // Steps are recorded where `steps` is not null.
  using Steps = std::vector<RenameStep>;
  void ApplyRenamings(RenamedKey* key, std::vector<bool>* active, std::span<const uint32_t> skip, Steps* steps) const;
  void ApplyConverters(RenamedKey* key, std::span<const uint32_t> skip, Steps* steps) const;
  RenamedKey Apply(std::string_view key, std::vector<bool>* active, std::span<const uint32_t> skip,
                   Steps* steps = nullptr) const;

  Direction direction_ = Direction::kLoad;
  std::vector<Entry> renamings_;
  std::vector<Entry> converters_;
  std::vector<bool> active_;
  mutable bool limit_exceeded_ = false;
};

}  // namespace quantport
