// A transform's patterns, processed and compiled as transformers does it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mapping/transform.h"
#include "quantport/error.h"

namespace quantport {

// Removes what only makes sense on the matching side (anchors, look-arounds, escapes) and puts \1 for a capture
// group. Follows transformers' process_target_pattern of either version, quirks included.
struct ProcessedTarget {
  std::string pattern;
  std::optional<std::string> captured_group;  // for example "(\d+)"
};
ProcessedTarget ProcessTargetPattern(std::string_view pattern, PatternRules rules = PatternRules::kAnywhere);

// One transform, ready to match names.
class CompiledTransform {
 public:
  struct Match {
    std::string renamed;  // with the first target in place of the matched text
    size_t source = 0;    // which source pattern matched
    // What the last "*" of that pattern stood for: an expert's number, in the lists of experts that loading stacks.
    std::optional<std::string> starred = {};
  };

  // Errors: kInvalidMapping naming the pattern.
  static Result<CompiledTransform> Compile(Transform transform);

  CompiledTransform(CompiledTransform&&) noexcept;
  CompiledTransform& operator=(CompiledTransform&&) noexcept;
  ~CompiledTransform();

  // Renames `key` where the transform matches it. `group_active` is the state of a GroupWeightRename's guard over all
  // names of a checkpoint in dot-natural order; other kinds don't touch it.
  // A regular expression that exceeds its work limit counts as no match and is noted in `limit_exceeded`.
  std::optional<Match> Rename(std::string_view key, bool* group_active, bool* limit_exceeded) const;

  const Transform& transform() const { return transform_; }
  // Patterns after processing, as Python's `source_patterns` and `target_patterns` hold them once constructed.
  const std::vector<std::string>& sources() const { return sources_; }
  const std::vector<std::string>& targets() const { return targets_; }

 private:
  struct Regex;
  explicit CompiledTransform(Transform transform);
  std::optional<std::string> Starred(std::string_view text, size_t source) const;

  Transform transform_;
  std::vector<std::string> sources_;
  std::vector<std::string> targets_;
  std::unique_ptr<Regex> regex_;
  std::unique_ptr<Regex> starred_;  // the same with a group around what "*" stands for; null where no source has one
};

// Steps after which a match is given up: patterns come from mapping files and exclude lists of strangers, and a nested
// repetition can take exponential time. Names are short; the largest count seen on real mappings is below 2000.
inline constexpr uint32_t kMatchLimit = 1'000'000;

enum class PatternMatch : uint8_t {
  kNo,
  kYes,
  kGivenUp,  // too many steps, or too much memory
};

// A Python regular expression of a stranger's config file, matched at the start of a text as by re.match.
class ModulePattern {
 public:
  // Nothing where the pattern does not compile.
  static std::optional<ModulePattern> Compile(std::string_view pattern);
  ModulePattern(ModulePattern&&) noexcept;
  ModulePattern& operator=(ModulePattern&&) noexcept;
  ~ModulePattern();
  // Takes the steps that it needs from `steps`, at most kMatchLimit of them.
  PatternMatch MatchesStart(std::string_view text, uint64_t* steps) const;

 private:
  struct Regex;
  ModulePattern();
  std::unique_ptr<Regex> regex_;
};

}  // namespace quantport
