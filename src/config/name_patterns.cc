#include "config/name_patterns.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>

#include "base/text.h"

namespace quantport {
namespace {

// Deeper paths are no module names, and looking at each of their segments would be quadratic in their length.
constexpr size_t kMaxSegments = 64;

using Alternatives = std::vector<std::vector<std::string>>;  // for the numbers of a name

// Covers members of a group by alternatives for their numbers, which stand at the segments `places`.
class NumberCover {
 public:
  NumberCover(std::span<const std::string> names, std::vector<size_t> places)
      : names_(names), places_(std::move(places)) {}

  // `members`: names that have the same numbers before `position`; `wanted`: some of them. Both sorted.
  std::vector<Alternatives> Cover(std::span<const uint32_t> members, std::span<const uint32_t> wanted,
                                  size_t position) const {
    if (wanted.size() == members.size()) return {Alternatives(places_.size() - position)};
    // Numbers behind which the same is wanted share a pattern.
    std::map<Alternatives, std::vector<std::string>> numbers;
    while (!wanted.empty()) {
      const std::string_view number = NumberAt(wanted.front(), position);
      const auto group = wanted.first(RunLength(wanted, number, position));
      wanted = wanted.subspan(group.size());
      const auto skipped =
          std::partition_point(members.begin(), members.end(), [&](uint32_t i) { return i < group.front(); });
      members = RunAround(members, static_cast<size_t>(skipped - members.begin()), number, position);
      const auto all = members.first(RunLength(members, number, position));
      members = members.subspan(all.size());
      for (Alternatives& rest : Cover(all, group, position + 1)) numbers[std::move(rest)].emplace_back(number);
    }
    std::vector<Alternatives> covers;
    for (auto& [rest, first] : numbers) {
      Alternatives cover = {std::move(first)};
      cover.insert(cover.end(), rest.begin(), rest.end());
      covers.push_back(std::move(cover));
    }
    return covers;
  }

 private:
  std::string_view NumberAt(uint32_t name, size_t position) const { return SplitDots(names_[name])[places_[position]]; }

  // How many of the first have this number.
  size_t RunLength(std::span<const uint32_t> sorted, std::string_view number, size_t position) const {
    const auto end =
        std::partition_point(sorted.begin(), sorted.end(), [&](uint32_t i) { return NumberAt(i, position) == number; });
    return static_cast<size_t>(end - sorted.begin());
  }

  // From the first member with this number on; `inside` is the place of one of them.
  std::span<const uint32_t> RunAround(std::span<const uint32_t> sorted, size_t inside, std::string_view number,
                                      size_t position) const {
    const auto begin = std::partition_point(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(inside),
                                            [&](uint32_t i) { return NumberAt(i, position) != number; });
    return sorted.subspan(static_cast<size_t>(begin - sorted.begin()));
  }

  std::span<const std::string> names_;
  std::vector<size_t> places_;
};

// Patterns that differ in their last segment become one.
std::vector<NamePattern> JoinedByLeaf(std::vector<NamePattern> patterns) {
  std::map<std::vector<std::vector<std::string>>, std::vector<std::string>> leaves;
  std::vector<NamePattern> joined;
  for (NamePattern& pattern : patterns) {
    if (pattern.segments.back().empty()) {
      joined.push_back(std::move(pattern));
      continue;
    }
    std::vector<std::string> leaf = std::move(pattern.segments.back());
    pattern.segments.pop_back();
    std::vector<std::string>& all = leaves[std::move(pattern.segments)];
    all.insert(all.end(), leaf.begin(), leaf.end());
  }
  for (auto& [above, leaf] : leaves) {
    joined.push_back({above});
    joined.back().segments.push_back(std::move(leaf));
  }
  return joined;
}

template <typename Names>
size_t CountBelow(const Names& sorted, const std::string& below) {
  const auto begin = std::lower_bound(sorted.begin(), sorted.end(), std::string_view(below));
  const auto end =
      std::partition_point(begin, sorted.end(), [&](std::string_view name) { return name.starts_with(below); });
  return static_cast<size_t>(end - begin);
}

}  // namespace

std::string EscapedName(std::string_view name) {
  std::string escaped;
  for (const char c : name) {
    if (std::string_view(".^$*+?()[]{}|\\").find(c) != std::string_view::npos) escaped += '\\';
    escaped += c;
  }
  return escaped;
}

size_t NamePattern::Combinations() const {
  size_t count = 1;
  for (const std::vector<std::string>& alternatives : segments) {
    if (!alternatives.empty()) count = count > SIZE_MAX / alternatives.size() ? SIZE_MAX : count * alternatives.size();
  }
  return count;
}

std::vector<std::string> NamePattern::Globs() const {
  std::vector<std::string> globs = {""};
  for (const std::vector<std::string>& alternatives : segments) {
    std::vector<std::string> longer;
    for (const std::string& glob : globs) {
      if (alternatives.empty()) longer.push_back(glob + ".*");
      for (const std::string& alternative : alternatives) longer.push_back(glob + "." + alternative);
    }
    globs = std::move(longer);
  }
  for (std::string& glob : globs) glob.erase(0, 1);
  return globs;
}

std::string NamePattern::Regex() const {
  std::vector<std::string> parts;
  for (const std::vector<std::string>& alternatives : segments) {
    std::vector<std::string> escaped;
    for (const std::string& alternative : alternatives) escaped.push_back(EscapedName(alternative));
    parts.push_back(escaped.empty()       ? "\\d+"
                    : escaped.size() == 1 ? escaped.front()
                                          : fmt::format("({})", fmt::join(escaped, "|")));
  }
  return fmt::format("^{}$", fmt::join(parts, "\\."));
}

AlikeNames::AlikeNames(std::span<const std::string> sorted) : names_(sorted) {
  std::map<std::vector<std::string_view>, uint32_t> known;
  for (uint32_t i = 0; i < names_.size(); ++i) {
    std::vector<std::string_view> segments = SplitDots(names_[i]);
    if (segments.size() > kMaxSegments) segments = {names_[i]};
    std::vector<std::string_view> text = segments;
    for (std::string_view& segment : text) {
      if (IsDigits(segment)) segment = "0";
    }
    const auto [it, fresh] = known.emplace(std::move(text), static_cast<uint32_t>(groups_.size()));
    if (fresh) groups_.push_back({std::move(segments), {}});
    groups_[it->second].members.push_back(i);
    group_of_.push_back(it->second);
  }
}

std::vector<NamePattern> AlikeNames::PatternsFor(const std::vector<uint32_t>& wanted) const {
  std::map<uint32_t, std::vector<uint32_t>> by_group;
  for (const uint32_t name : wanted) by_group[group_of_[name]].push_back(name);
  std::vector<NamePattern> patterns;
  for (const auto& [index, names] : by_group) {
    const Group& group = groups_[index];
    std::vector<size_t> places;
    for (size_t i = 0; i < group.segments.size(); ++i) {
      if (IsDigits(group.segments[i])) places.push_back(i);
    }
    for (const Alternatives& numbers : NumberCover(names_, places).Cover(group.members, names, 0)) {
      NamePattern pattern;
      for (const std::string_view segment : group.segments) pattern.segments.push_back({std::string(segment)});
      for (size_t i = 0; i < places.size(); ++i) pattern.segments[places[i]] = numbers[i];
      patterns.push_back(std::move(pattern));
    }
  }
  return JoinedByLeaf(std::move(patterns));
}

Subtrees SubtreesFor(std::span<const std::string> sorted, const std::vector<uint32_t>& wanted) {
  std::vector<std::string_view> chosen;
  chosen.reserve(wanted.size());
  for (const uint32_t index : wanted) chosen.push_back(sorted[index]);
  Subtrees subtrees;
  for (const std::string_view name : chosen) {
    if (!subtrees.above.empty() && name.starts_with(subtrees.above.back() + ".")) continue;
    size_t left = kMaxSegments;
    size_t dot = name.find('.');
    for (; dot != std::string_view::npos && left-- > 0; dot = name.find('.', dot + 1)) {
      const std::string below(name.substr(0, dot + 1));
      if (CountBelow(sorted, below) == CountBelow(chosen, below)) break;
    }
    if (left == SIZE_MAX) dot = std::string_view::npos;
    (dot == std::string_view::npos ? subtrees.alone : subtrees.above).emplace_back(name.substr(0, dot));
  }
  return subtrees;
}

}  // namespace quantport
