#include "base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"

namespace quantport {
namespace {

constexpr int kMaxDepth = 256;
constexpr std::array<std::string_view, 3> kPythonNumbers = {"-Infinity", "Infinity", "NaN"};
// A private-use character: no config has a string that starts with it.
constexpr std::string_view kMark = "\uF8F0quantport-number:";
constexpr std::string_view kEscapedMark = "\\uf8f0quantport-number:";

// `text` with Python's non-finite numbers outside strings written as marked strings.
std::string MarkPythonNumbers(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (in_string && c == '\\' && i + 1 < text.size()) {
      out += text.substr(i, 2);
      i += 2;
      continue;
    }
    if (c == '"') in_string = !in_string;
    std::string_view number;
    for (const std::string_view candidate : kPythonNumbers) {
      if (!in_string && text.substr(i).starts_with(candidate)) {
        number = candidate;
        break;
      }
    }
    if (number.empty()) {
      out += c;
      ++i;
    } else {
      out += fmt::format("\"{}{}\"", kMark, number);
      i += number.size();
    }
  }
  return out;
}

std::string UnmarkPythonNumbers(const std::string& text, bool ascii) {
  const std::string_view mark = ascii ? kEscapedMark : kMark;
  std::string out = text;
  for (const std::string_view number : kPythonNumbers)
    out = ReplaceAll(out, fmt::format("\"{}{}\"", mark, number), number);
  return out;
}

// Brackets in strings do not count. Of a text that is no JSON the answer means nothing.
bool IsNestedDeeper(std::string_view text, int most) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > most) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace

Result<Json> ParseJson(std::string_view text, std::string_view file, ErrorKind kind) {
  // Counted beforehand: the parser's callbacks, which tell of depth too, make it take quadratic time on a long list.
  if (IsNestedDeeper(text, kMaxDepth))
    return Error{kind, fmt::format("JSON nested deeper than {}", kMaxDepth), std::string(file), {}, {}};
  try {
    return Json::parse(MarkPythonNumbers(text));
  } catch (const nlohmann::json::exception& error) {
    return Error{kind, fmt::format("invalid JSON: {}", error.what()), std::string(file), {}, {}};
  }
}

JsonStyle StyleOf(std::string_view text) {
  JsonStyle style;
  style.final_newline = text.ends_with('\n');
  style.ascii = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  const size_t line = text.substr(0, text.find_last_not_of(" \t\r\n") + 1).find('\n');
  if (line == std::string_view::npos) {
    style.indent = -1;
    return style;
  }
  const size_t first = text.find_first_not_of(' ', line + 1);
  if (first != std::string_view::npos && first > line + 1) style.indent = static_cast<int>(first - line - 1);
  return style;
}

std::string DumpJson(const Json& json, const JsonStyle& style) {
  std::string text = json.dump(style.indent, ' ', style.ascii, Json::error_handler_t::replace);
  text = UnmarkPythonNumbers(text, style.ascii);
  if (style.final_newline) text += '\n';
  return text;
}

}  // namespace quantport
