#include "base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace quantport {
namespace {

// Length of the valid UTF-8 sequence at the start of `text`, 0 where there is none.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  const size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  return length;
}

struct NaturalPart {
  int kind;               // 0 a number, 1 text; numbers come first
  std::string_view text;  // for text: without its trailing digits
  std::string_view digits;
};

std::string_view StripZeros(std::string_view digits) {
  const size_t first = digits.find_first_not_of('0');
  return first == std::string_view::npos ? digits.substr(digits.empty() ? 0 : digits.size() - 1) : digits.substr(first);
}

NaturalPart ParsePart(std::string_view part) {
  if (IsDigits(part)) return {0, {}, StripZeros(part)};
  size_t end = part.size();
  while (end > 0 && part[end - 1] >= '0' && part[end - 1] <= '9') --end;
  const std::string_view digits = part.substr(end);
  return {1, part.substr(0, end), digits.empty() ? digits : StripZeros(digits)};
}

int CompareDigits(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  return a.compare(b);
}

int ComparePart(std::string_view a, std::string_view b) {
  const NaturalPart x = ParsePart(a);
  const NaturalPart y = ParsePart(b);
  if (x.kind != y.kind) return x.kind < y.kind ? -1 : 1;
  if (const int c = x.text.compare(y.text); c != 0) return c;
  // A tuple without a number is shorter, and so smaller, than the same text with one.
  if (x.digits.empty() != y.digits.empty()) return x.digits.empty() ? -1 : 1;
  return CompareDigits(x.digits, y.digits);
}

// Of one character in valid UTF-8.
uint32_t CodePoint(std::string_view character) {
  const auto first = static_cast<unsigned char>(character[0]);
  uint32_t code = character.size() == 1 ? first : first & (0x7Fu >> character.size());
  for (const char byte : character.substr(1)) code = code << 6 | (static_cast<unsigned char>(byte) & 0x3F);
  return code;
}

// Characters that act instead of being seen: they end lines, move the cursor, start escape sequences (on some terminals
// U+0080 to U+009F do), turn the direction of the text behind them round, or take no room.
bool IsHidden(uint32_t code) {
  struct Range {
    uint32_t first;
    uint32_t last;
  };
  constexpr std::array<Range, 7> kHidden = {{{0, 0x1F},
                                             {0x7F, 0x9F},
                                             {0x61C, 0x61C},
                                             {0x200B, 0x200F},
                                             {0x2028, 0x202E},
                                             {0x2060, 0x206F},
                                             {0xFEFF, 0xFEFF}}};
  return std::any_of(kHidden.begin(), kHidden.end(),
                     [&](const Range& range) { return range.first <= code && code <= range.last; });
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const std::string_view character = text.substr(0, std::max<size_t>(length, 1));
    const uint32_t code = length == 0 ? 0 : CodePoint(character);
    if (code > 0xFF && IsHidden(code)) {
      out += fmt::format("\\u{:04x}", code);
    } else if (IsHidden(code)) {
      for (const char byte : character) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
    } else {
      out += character;
    }
    text.remove_prefix(character.size());
  }
  return out;
}

std::vector<std::string_view> SplitDots(std::string_view text) {
  std::vector<std::string_view> parts;
  size_t start = 0;
  for (size_t dot = text.find('.'); dot != std::string_view::npos; dot = text.find('.', start)) {
    parts.push_back(text.substr(start, dot - start));
    start = dot + 1;
  }
  parts.push_back(text.substr(start));
  return parts;
}

bool DotNaturalLess(std::string_view a, std::string_view b) {
  size_t i = 0;
  size_t j = 0;
  while (true) {
    const size_t i_end = std::min(a.find('.', i), a.size());
    const size_t j_end = std::min(b.find('.', j), b.size());
    if (const int c = ComparePart(a.substr(i, i_end - i), b.substr(j, j_end - j)); c != 0) return c < 0;
    if (i_end == a.size() || j_end == b.size()) return i_end == a.size() && j_end != b.size();
    i = i_end + 1;
    j = j_end + 1;
  }
}

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t start = 0;
  if (from.empty()) return std::string(text);
  for (size_t hit = text.find(from); hit != std::string_view::npos; hit = text.find(from, start)) {
    out += text.substr(start, hit - start);
    out += to;
    start = hit + from.size();
  }
  out += text.substr(start);
  return out;
}

std::string ReplaceFirst(std::string_view text, std::string_view from, std::string_view to) {
  const size_t hit = text.find(from);
  if (hit == std::string_view::npos) return std::string(text);
  std::string out(text.substr(0, hit));
  out += to;
  out += text.substr(hit + from.size());
  return out;
}

std::string HumanBytes(uint64_t bytes) {
  static constexpr std::array<std::string_view, 5> kUnits = {"B", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000.0 && unit + 1 < kUnits.size()) {
    value /= 1000.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, kUnits[unit]);
}

std::string ShortenMiddle(std::string_view text, size_t width) {
  constexpr std::string_view kGap = "...";
  std::vector<size_t> starts;  // of each character
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) starts.push_back(i);
  }
  if (starts.size() <= width) return std::string(text);
  if (width <= kGap.size()) return std::string(kGap.substr(0, width));
  const size_t kept = width - kGap.size();
  const size_t tail = kept / 2;
  std::string out(text.substr(0, starts[kept - tail]));
  out += kGap;
  if (tail > 0) out += text.substr(starts[starts.size() - tail]);
  return out;
}

bool IsDigits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

ModuleAndLeaf SplitLeaf(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {{}, name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

std::string JoinName(std::string_view module, std::string_view leaf) {
  std::string name(module);
  if (!name.empty()) name += '.';
  name += leaf;
  return name;
}

namespace {

// Position of the `]` that closes the set opened at `open`, or npos where it never closes.
size_t SetEnd(std::string_view pattern, size_t open) {
  size_t i = open + 1;
  if (i < pattern.size() && pattern[i] == '!') ++i;
  if (i < pattern.size() && pattern[i] == ']') ++i;
  return pattern.find(']', i);
}

bool IsBefore(char a, char b) { return static_cast<unsigned char>(a) < static_cast<unsigned char>(b); }

// Python takes ranges that run backwards out before it asks whether the set is negated, so the "!" may stand behind
// them, and may have begun a range that is none then.
bool InSet(std::string_view set, char c) {
  bool negated = set.starts_with('!');
  bool at_first = !negated;
  bool hit = false;
  for (size_t i = negated ? 1 : 0; i < set.size();) {
    const bool range = i + 2 < set.size() && set[i + 1] == '-';
    const char first = set[i], last = range ? set[i + 2] : first;
    i += range ? 3 : 1;
    if (IsBefore(last, first)) continue;
    if (at_first && first == '!') {
      negated = true;
      hit = range && (c == '-' || c == last);
    } else {
      hit |= !IsBefore(c, first) && !IsBefore(last, c);
    }
    at_first = false;
  }
  return hit != negated;
}

}  // namespace

bool GlobMatch(std::string_view pattern, std::string_view text) {
  uint64_t steps = UINT64_MAX;
  return *GlobMatch(pattern, text, &steps);
}

std::optional<bool> GlobMatch(std::string_view pattern, std::string_view text, uint64_t* steps) {
  // Linear backtracking to the last star only, so that a stranger's pattern can't take exponential time.
  size_t p = 0;
  size_t t = 0;
  size_t star = std::string_view::npos;
  size_t star_text = 0;
  while (t < text.size()) {
    const bool set = p < pattern.size() && pattern[p] == '[';
    const size_t close = set ? SetEnd(pattern, p) : std::string_view::npos;
    const uint64_t looked_at = set ? std::min(close, pattern.size()) - p + 1 : 1;
    if (*steps < looked_at) {
      *steps = 0;
      return std::nullopt;
    }
    *steps -= looked_at;
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
      continue;
    }
    size_t next = p + 1;
    bool hit = false;
    if (p < pattern.size()) {
      if (close != std::string_view::npos) {
        hit = InSet(pattern.substr(p + 1, close - p - 1), text[t]);
        next = close + 1;
      } else {
        hit = pattern[p] == '?' || pattern[p] == text[t];
      }
    }
    if (hit) {
      p = next;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace quantport
