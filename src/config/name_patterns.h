// A few patterns for a set of module names: what a list says of thousands of experts in one line stays one line.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quantport {

// A module name in which a segment may be one of several, or any number.
struct NamePattern {
  std::vector<std::vector<std::string>> segments;  // alternatives; none: any number

  size_t Combinations() const;
  // As fnmatch has it, one for each combination of alternatives; a star may match more than a number.
  std::vector<std::string> Globs() const;
  // A regular expression for the whole name.
  std::string Regex() const;
};

// Names that have the same text between numbers. Keeps views of the names.
class AlikeNames {
 public:
  explicit AlikeNames(std::span<const std::string> sorted);

  // Patterns that together match those of the names that `wanted` tells (indices, sorted), and no others of them.
  std::vector<NamePattern> PatternsFor(const std::vector<uint32_t>& wanted) const;

 private:
  struct Group {
    std::vector<std::string_view> segments;  // of one of its names
    std::vector<uint32_t> members;           // sorted
  };

  std::span<const std::string> names_;
  std::vector<Group> groups_;
  std::vector<uint32_t> group_of_;  // of each name
};

// The shortest paths all of whose modules below are wanted, and wanted modules that lie below none of these.
struct Subtrees {
  std::vector<std::string> above;
  std::vector<std::string> alone;
};
Subtrees SubtreesFor(std::span<const std::string> sorted, const std::vector<uint32_t>& wanted);

// A regular expression for this text.
std::string EscapedName(std::string_view name);

}  // namespace quantport
