#include "mapping/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <numeric>
#include <set>

#include "base/text.h"

namespace quantport {
namespace {

// Of what an interpreted match may take; compiled ones have a stack of 32 KiB.
constexpr uint32_t kHeapLimitKiB = 16 << 10;

// PCRE2 does not tell how many steps a match took. So it is tried with few, which suffice for nearly all, and then with
// more; what was allowed is counted.
constexpr uint64_t kFirstLimit = 512;
constexpr uint64_t kMoreSteps = 16;

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct MatchDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct ContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

// A compiled PCRE2 expression with Python's meaning of \d and \w (Unicode).
struct Pcre {
  std::unique_ptr<pcre2_code, CodeDeleter> code;
  std::unique_ptr<pcre2_match_data, MatchDeleter> data;
  std::unique_ptr<pcre2_match_context, ContextDeleter> context;

  // The message of a failed compilation, or nothing.
  std::optional<std::string> Compile(const std::string& pattern, uint32_t options) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                             options | PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
    if (!code) {
      char buffer[256] = {};
      pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(buffer), sizeof buffer);
      return fmt::format("{} at character {}", buffer, offset);
    }
    (void)pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // without JIT the interpreter runs, only slower
    data.reset(pcre2_match_data_create_from_pattern(code.get(), nullptr));
    context.reset(pcre2_match_context_create(nullptr));
    pcre2_set_heap_limit(context.get(), kHeapLimitKiB);
    return std::nullopt;
  }

  int Match(std::string_view text, uint32_t limit = kMatchLimit) const {
    pcre2_set_match_limit(context.get(), limit);
    const auto match = [&](uint32_t options) {
      return pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                         options | PCRE2_NO_UTF_CHECK, data.get(), context.get());
    };
    const int result = match(0);
    return result == PCRE2_ERROR_JIT_STACKLIMIT ? match(PCRE2_NO_JIT) : result;
  }

  // The text of a group, or nothing where it took no part in the match.
  std::optional<std::string_view> Group(uint32_t number, std::string_view text) const {
    if (number >= pcre2_get_ovector_count(data.get())) return std::nullopt;
    const PCRE2_SIZE* vector = pcre2_get_ovector_pointer(data.get());
    if (vector[2 * number] == PCRE2_UNSET) return std::nullopt;
    return text.substr(vector[2 * number], vector[2 * number + 1] - vector[2 * number]);
  }
};

// Python: re.sub(r"\(\?.+?\)?\)", "", pattern)
std::string RemoveLookArounds(std::string_view pattern) {
  std::string out;
  size_t i = 0;
  while (i < pattern.size()) {
    const size_t close = pattern.substr(i).starts_with("(?") ? pattern.find(')', i + 3) : std::string_view::npos;
    if (close == std::string_view::npos) {
      out += pattern[i++];
      continue;
    }
    i = close + 1 + (close + 1 < pattern.size() && pattern[close + 1] == ')' ? 1 : 0);
  }
  return out;
}

// Python: re.search(r"\(.+?\)", pattern)
std::optional<std::string> FirstGroup(std::string_view pattern) {
  for (size_t open = pattern.find('('); open != std::string_view::npos; open = pattern.find('(', open + 1)) {
    const size_t close = pattern.find(')', open + 2);
    if (close != std::string_view::npos) return std::string(pattern.substr(open, close - open + 1));
  }
  return std::nullopt;
}

// An anchor on the original target moves to the source when the transform is reversed.
std::string CopyAnchors(std::string source, std::string_view original_target, PatternRules rules) {
  if (original_target.starts_with('^') && !source.starts_with('^')) source.insert(0, 1, '^');
  if (rules == PatternRules::kAnywhere && original_target.ends_with('$') && !source.ends_with('$')) source += '$';
  return source;
}

bool IsAsciiAlphanumeric(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

constexpr std::string_view kStar = ".*\\.";  // what "*" before a dot matches

// Source `i` as a regular expression. With `group_star` its last star is the group s<i>. That shifts the numbers of the
// groups behind it, so only the expression that is asked for nothing else has it.
std::string ExpandStars(const std::string& source, size_t i, bool group_star) {
  std::string pattern = ReplaceAll(source, "*.", kStar);
  const size_t last = group_star ? pattern.rfind(kStar) : std::string::npos;
  if (last != std::string::npos) pattern.replace(last, 2, fmt::format("(?P<s{}>.*)", i));
  return pattern;
}

// The alternation of all sources, each in a group of its own: (?P<g0>...)|(?P<g1>...)
std::string Alternation(const std::vector<std::string>& sources, PatternRules rules, bool group_stars) {
  std::vector<size_t> order(sources.size());
  std::iota(order.begin(), order.end(), 0);
  if (rules == PatternRules::kWholeWords) {
    // "weight.absmax" must be tried before "weight".
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return sources[a].size() > sources[b].size(); });
  }
  std::string alternation;
  for (const size_t i : order) {
    std::string pattern = ExpandStars(sources[i], i, group_stars);
    if (rules == PatternRules::kWholeWords && !pattern.empty() && IsAsciiAlphanumeric(pattern.back()))
      pattern += "(?!\\w)";
    alternation += fmt::format("{}(?P<g{}>{})", alternation.empty() ? "" : "|", i, pattern);
  }
  return alternation;
}

// What LayerPairCollapse looks for, whatever its patterns say: layer number, and attention or MLP.
constexpr std::string_view kLayerPair = R"(layers\.(\d+)\.(mixer|attn_alpha|mlp_alpha)(?=\.|$))";

Error MappingError(std::string message) { return Error{ErrorKind::kInvalidMapping, std::move(message), {}, {}, {}}; }

}  // namespace

struct CompiledTransform::Regex : Pcre {
  std::vector<uint32_t> group_numbers;  // for each source of its branch, (?P<gI>...), or of its star, (?P<sI>...)

  // Finds the group `prefix`<i> of every source; 0 stands for none.
  void NumberGroups(char prefix, size_t sources) {
    for (size_t i = 0; i < sources; ++i) {
      const std::string name = fmt::format("{}{}", prefix, i);
      const int number = pcre2_substring_number_from_name(code.get(), reinterpret_cast<PCRE2_SPTR>(name.c_str()));
      group_numbers.push_back(number < 0 ? 0 : static_cast<uint32_t>(number));
    }
  }
};

ProcessedTarget ProcessTargetPattern(std::string_view pattern, PatternRules rules) {
  const bool anywhere = rules == PatternRules::kAnywhere;
  if (pattern.starts_with('^')) pattern.remove_prefix(1);
  if (anywhere && pattern.ends_with('$')) pattern.remove_suffix(1);
  ProcessedTarget processed;
  processed.pattern = RemoveLookArounds(pattern);
  // Newer versions unescape dots outside the group only: inside they go on to match literally. Once in either: a second
  // time would take the backslash that an escaped backslash has left.
  if (anywhere) processed.pattern = ReplaceAll(processed.pattern, "\\.", ".");
  processed.captured_group = FirstGroup(processed.pattern);
  if (processed.captured_group) processed.pattern = ReplaceFirst(processed.pattern, *processed.captured_group, "\\1");
  if (!anywhere) processed.pattern = ReplaceAll(processed.pattern, "\\.", ".");
  return processed;
}

CompiledTransform::CompiledTransform(Transform transform)
    : transform_(std::move(transform)), regex_(std::make_unique<Regex>()) {}
CompiledTransform::CompiledTransform(CompiledTransform&&) noexcept = default;
CompiledTransform& CompiledTransform::operator=(CompiledTransform&&) noexcept = default;
CompiledTransform::~CompiledTransform() = default;

Result<CompiledTransform> CompiledTransform::Compile(Transform transform) {
  CompiledTransform compiled(std::move(transform));
  const Transform& from = compiled.transform_;
  if (from.kind == TransformKind::kLayerPairCollapse) {
    compiled.sources_ = from.source_patterns;
    compiled.targets_ = from.target_patterns;
    (void)compiled.regex_->Compile(std::string(kLayerPair), 0);
    return compiled;
  }
  std::set<std::string> groups;
  for (const std::string& target : from.target_patterns) {
    ProcessedTarget processed = ProcessTargetPattern(target, from.rules);
    if (processed.captured_group) groups.insert(*processed.captured_group);
    compiled.targets_.push_back(std::move(processed.pattern));
  }
  if (groups.size() > 1)
    return MappingError(fmt::format("{}: its targets use different capture groups", DescribeTransform(from)));
  for (size_t i = 0; i < from.source_patterns.size(); ++i) {
    std::string source = from.source_patterns[i];
    if (source.find("\\1") != std::string::npos) {
      if (groups.empty()) return MappingError(fmt::format("{}: \\1 without a capture group", DescribeTransform(from)));
      source = ReplaceFirst(source, "\\1", *groups.begin());
    }
    if (from.source_patterns.size() == from.target_patterns.size())
      source = CopyAnchors(std::move(source), from.target_patterns[i], from.rules);
    compiled.sources_.push_back(std::move(source));
  }
  if (auto failure = compiled.regex_->Compile(Alternation(compiled.sources_, from.rules, false), 0)) {
    return MappingError(fmt::format("{}: the pattern does not compile: {}", DescribeTransform(from), *failure));
  }
  compiled.regex_->NumberGroups('g', compiled.sources_.size());
  const bool stars = std::any_of(compiled.sources_.begin(), compiled.sources_.end(),
                                 [](const std::string& source) { return source.find('*') != std::string::npos; });
  if (from.kind == TransformKind::kWeightConverter && stars) {
    auto starred = std::make_unique<Regex>();
    // Where a stranger's pattern has a group of that name already, its lists have no numbers.
    if (!starred->Compile(Alternation(compiled.sources_, from.rules, true), 0)) {
      starred->NumberGroups('s', compiled.sources_.size());
      compiled.starred_ = std::move(starred);
    }
  }
  return compiled;
}

namespace {

// \1 stands for the first group inside the branch that matched; a GroupWeightRename allows \2 and more.
std::string FillGroups(std::string_view target, bool many, const Pcre& regex, uint32_t branch, std::string_view text) {
  std::string out;
  for (size_t i = 0; i < target.size(); ++i) {
    const bool digit =
        target[i] == '\\' && i + 1 < target.size() && target[i + 1] >= '1' && target[i + 1] <= (many ? '9' : '1');
    if (!digit) {
      out += target[i];
      continue;
    }
    out += regex.Group(branch + static_cast<uint32_t>(target[++i] - '0'), text).value_or("");
  }
  return out;
}

// `target` with \1 filled by the number in the branch's first group, shifted; nothing where that is no number.
std::optional<std::string> FillShifted(std::string_view target, int offset, const Pcre& regex, uint32_t branch,
                                       std::string_view text) {
  const std::string_view digits = regex.Group(branch + 1, text).value_or("");
  int64_t index = 0;
  if (!IsDigits(digits) || std::from_chars(digits.data(), digits.data() + digits.size(), index).ec != std::errc() ||
      index > std::numeric_limits<int32_t>::max())
    return std::nullopt;
  return ReplaceAll(target, "\\1", std::to_string(index + offset));
}

// Layers 2i and 2i + 1 of the hub become attention and MLP of layer i. Scopes play no part.
std::optional<std::string> CollapseLayerPair(std::string_view key, const Pcre& regex) {
  const std::string_view digits = *regex.Group(1, key);
  const std::string_view what = *regex.Group(2, key);
  uint64_t layer = 0;
  if (std::from_chars(digits.data(), digits.data() + digits.size(), layer).ec != std::errc()) return std::nullopt;
  const std::string_view name = what == "attn_alpha"  ? "lambda_1"
                                : what == "mlp_alpha" ? "lambda_2"
                                : layer % 2 == 0      ? "self_attn"
                                                      : "mlp";
  const std::string_view matched = *regex.Group(0, key);
  const auto begin = static_cast<size_t>(matched.data() - key.data());
  return fmt::format("{}layers.{}.{}{}", key.substr(0, begin), layer / 2, name, key.substr(begin + matched.size()));
}

// How much of the front of `key` a scoped transform strips before it matches; nothing where the key is outside.
std::optional<size_t> ScopeLength(const Transform& transform, std::string_view key) {
  if (!transform.scope_prefix) return 0;
  const std::string scope = transform.scope_prefix->empty() ? "" : *transform.scope_prefix + ".";
  const std::string base = transform.base_model_prefix.empty() ? "" : transform.base_model_prefix + ".";
  if (key.starts_with(base + scope)) return base.size() + scope.size();
  if (key.starts_with(scope)) return scope.size();
  return std::nullopt;
}

}  // namespace

std::optional<CompiledTransform::Match> CompiledTransform::Rename(std::string_view key, bool* group_active,
                                                                  bool* limit_exceeded) const {
  const bool is_pair = transform_.kind == TransformKind::kLayerPairCollapse;
  const std::optional<size_t> scope = is_pair ? 0 : ScopeLength(transform_, key);
  if (!scope) return std::nullopt;
  const std::string_view text = key.substr(*scope);
  const int hit = regex_->Match(text);
  if (hit < 0) {
    if (hit != PCRE2_ERROR_NOMATCH) *limit_exceeded = true;
    return std::nullopt;
  }
  if (is_pair) {
    auto collapsed = CollapseLayerPair(text, *regex_);
    if (!collapsed) return std::nullopt;
    return Match{std::move(*collapsed)};
  }
  size_t source = 0;
  const size_t branches = regex_->group_numbers.size();
  while (source < branches && !regex_->Group(regex_->group_numbers[source], text)) ++source;
  // A stranger's pattern with an unbalanced parenthesis, "a)|(b", can match outside every branch.
  if (source == branches) return std::nullopt;
  const bool is_group = transform_.kind == TransformKind::kGroupWeightRename;
  if (is_group) {
    if (source == 0) *group_active = true;
    if (!*group_active) return std::nullopt;
  }
  const std::string& target = targets_[is_group ? source : 0];
  const uint32_t branch = regex_->group_numbers[source];
  const std::optional<std::string> replacement = transform_.kind == TransformKind::kIndexOffsetRename
                                                     ? FillShifted(target, transform_.offset, *regex_, branch, text)
                                                     : FillGroups(target, is_group, *regex_, branch, text);
  if (!replacement) return std::nullopt;
  // transformers replaces the first occurrence of the matched text, which may stand before the match itself.
  const std::string_view matched = *regex_->Group(0, text);
  return Match{std::string(key.substr(0, *scope)) + ReplaceFirst(text, matched, *replacement), source,
               Starred(text, source)};
}

std::optional<std::string> CompiledTransform::Starred(std::string_view text, size_t source) const {
  if (!starred_ || starred_->group_numbers[source] == 0 || starred_->Match(text) < 0) return std::nullopt;
  const auto star = starred_->Group(starred_->group_numbers[source], text);
  return star ? std::optional(std::string(*star)) : std::nullopt;
}

struct ModulePattern::Regex : Pcre {};
ModulePattern::ModulePattern() : regex_(std::make_unique<Regex>()) {}
ModulePattern::ModulePattern(ModulePattern&&) noexcept = default;
ModulePattern& ModulePattern::operator=(ModulePattern&&) noexcept = default;
ModulePattern::~ModulePattern() = default;

std::optional<ModulePattern> ModulePattern::Compile(std::string_view pattern) {
  ModulePattern compiled;
  if (compiled.regex_->Compile(std::string(pattern), PCRE2_ANCHORED)) return std::nullopt;
  return compiled;
}

PatternMatch ModulePattern::MatchesStart(std::string_view text, uint64_t* steps) const {
  for (uint64_t limit = kFirstLimit;; limit *= kMoreSteps) {
    limit = std::min<uint64_t>({limit, kMatchLimit, *steps});
    const int hit = regex_->Match(text, static_cast<uint32_t>(limit));
    *steps -= limit;
    if (hit >= 0) return PatternMatch::kYes;
    if (hit == PCRE2_ERROR_NOMATCH) return PatternMatch::kNo;
    if (hit != PCRE2_ERROR_MATCHLIMIT || limit == kMatchLimit || *steps == 0) return PatternMatch::kGivenUp;
  }
}

}  // namespace quantport
