// Patterns: an input is a pattern, a line break, and a text. Globs are held against a matcher that tries everything,
// target patterns against the regular expressions that transformers writes for them.
#include <algorithm>
#include <bitset>
#include <cstdint>
#include <regex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.h"
#include "check.h"
#include "mapping/pattern.h"

namespace quantport {
namespace {

using fuzz::Check;

// A set between brackets, as Python's fnmatch reads it: ranges from the left, a dash that opens none is literal. Ranges
// that run backwards are taken out first, so that a "!" behind them negates, even one that began a range.
std::bitset<256> ParseSet(std::string_view body) {
  std::vector<std::pair<uint8_t, uint8_t>> ranges;
  std::string kept;
  if (body.starts_with('!')) {
    ranges.emplace_back('!', '!');
    kept = "!";
    body.remove_prefix(1);
  }
  while (!body.empty()) {
    const size_t length = body.size() > 2 && body[1] == '-' ? 3 : 1;
    const auto first = static_cast<uint8_t>(body[0]), last = static_cast<uint8_t>(body[length - 1]);
    if (first <= last) {
      ranges.emplace_back(first, last);
      kept += body.substr(0, length);
    }
    body.remove_prefix(length);
  }
  const bool negated = kept.starts_with('!');
  if (negated) {
    const uint8_t last = ranges[0].second;
    ranges.erase(ranges.begin());
    if (kept.starts_with("!-") && (last != '!' || kept.starts_with("!-!")))
      ranges.insert(ranges.begin(), {{'-', '-'}, {last, last}});
  }
  std::bitset<256> set;
  for (const auto& [first, last] : ranges) {
    for (size_t c = first; c <= last; ++c) set.set(c);
  }
  return negated ? ~set : set;
}

bool NaiveGlob(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern[0] == '*') {
    return NaiveGlob(pattern.substr(1), text) || (!text.empty() && NaiveGlob(pattern, text.substr(1)));
  }
  if (text.empty()) return false;
  if (pattern[0] == '[') {
    size_t close = 1;
    if (pattern.substr(close).starts_with('!')) ++close;
    if (pattern.substr(close).starts_with(']')) ++close;
    close = pattern.find(']', close);
    if (close != std::string_view::npos) {
      return ParseSet(pattern.substr(1, close - 1)).test(static_cast<unsigned char>(text[0])) &&
             NaiveGlob(pattern.substr(close + 1), text.substr(1));
    }
  }
  return (pattern[0] == '?' || pattern[0] == text[0]) && NaiveGlob(pattern.substr(1), text.substr(1));
}

void CheckGlob(std::string_view pattern, std::string_view text) {
  // The naive matcher is exponential in the stars.
  if (pattern.size() > 16 || text.size() > 24 || std::count(pattern.begin(), pattern.end(), '*') > 5) {
    (void)GlobMatch(pattern, text);
    return;
  }
  Check(GlobMatch(pattern, text) == NaiveGlob(pattern, text), "a glob matches what it should");
}

// transformers' process_target_pattern, with its own regular expressions.
ProcessedTarget NaiveTarget(std::string pattern) {
  static const std::regex look_around(R"(\(\?.+?\)?\))");
  static const std::regex group(R"(\(.+?\))");
  if (pattern.starts_with('^')) pattern.erase(0, 1);
  if (pattern.ends_with('$')) pattern.pop_back();
  ProcessedTarget processed;
  processed.pattern = ReplaceAll(std::regex_replace(pattern, look_around, ""), "\\.", ".");
  std::smatch match;
  if (std::regex_search(processed.pattern, match, group)) {
    processed.captured_group = match.str();
    processed.pattern = ReplaceFirst(processed.pattern, *processed.captured_group, "\\1");
  }
  return processed;
}

void CheckTarget(std::string_view pattern) {
  const ProcessedTarget processed = ProcessTargetPattern(pattern);
  // std::regex recurses for each character, and its dot matches no line break of any kind.
  if (pattern.size() > 64 || pattern.find_first_of("\r\n") != std::string_view::npos) return;
  const ProcessedTarget naive = NaiveTarget(std::string(pattern));
  Check(processed.pattern == naive.pattern, "a target pattern becomes what transformers makes of it");
  Check(processed.captured_group == naive.captured_group, "a target's group is the one transformers finds");
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t line = input.find('\n');
  const std::string_view pattern = input.substr(0, line);
  const std::string_view text = line == std::string_view::npos ? "" : input.substr(line + 1);
  CheckGlob(pattern, text);
  CheckTarget(pattern);
  Check(SplitDots(input).size() == static_cast<size_t>(std::count(input.begin(), input.end(), '.')) + 1,
        "dots separate parts");
  Check(!DotNaturalLess(pattern, text) || !DotNaturalLess(text, pattern), "an order has one direction");
  (void)Printable(input);
  return 0;
}
