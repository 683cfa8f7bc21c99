// Names of all outputs of a converter, from the one name that renaming gives.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quantport {

// A converter's name template: `prefix` + a target pattern + `suffix`. Renaming puts a converter's first target into
// a name; every other output differs only in that text.
struct TargetTemplate {
  std::string prefix;
  std::string suffix;

  // `target` with "*" filled by `index`.
  std::string Name(std::string_view target, std::optional<uint64_t> index) const;
};

// Finds a target's text in `renamed` ("*" written as 0 there, as transformers does), or nothing where a later
// renaming changed it, in which case the outputs' names can't be told apart.
std::optional<TargetTemplate> FindTarget(std::string_view renamed, const std::vector<std::string>& targets);

// The names of all targets; `renamed` alone where the template is lost.
std::vector<std::string> ExpandTargets(const std::string& renamed, const std::vector<std::string>& targets);

}  // namespace quantport
