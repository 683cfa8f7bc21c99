#include "base/json.h"

#include <fmt/format.h>

#include <array>
#include <cctype>

#include "base/text.h"

namespace quantport {
namespace {

constexpr int kMaxDepth = 256;
constexpr std::array<std::string_view, 3> kPythonNumbers = {"-Infinity", "Infinity", "NaN"};
// A private-use character: no config has a string that starts with it.
constexpr std::string_view kMark = "\uF8F0quantport-number:";

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

std::string UnmarkPythonNumbers(const std::string& text) {
  std::string out = text;
  for (const std::string_view number : kPythonNumbers)
    out = ReplaceAll(out, fmt::format("\"{}{}\"", kMark, number), number);
  return out;
}

}  // namespace

Result<Json> ParseJson(std::string_view text, std::string_view file, ErrorKind kind) {
  bool too_deep = false;
  const auto watch_depth = [&](int depth, Json::parse_event_t, Json&) {
    too_deep |= depth > kMaxDepth;
    return !too_deep;
  };
  try {
    Json json = Json::parse(MarkPythonNumbers(text), watch_depth);
    if (too_deep) return Error{kind, fmt::format("JSON nested deeper than {}", kMaxDepth), std::string(file), {}, {}};
    return json;
  } catch (const nlohmann::json::exception& error) {
    return Error{kind, fmt::format("invalid JSON: {}", error.what()), std::string(file), {}, {}};
  }
}

std::string DumpJson(const Json& json, int indent, bool final_newline) {
  // Python escapes everything outside ASCII unless told otherwise; transformers and ModelOpt don't tell it otherwise.
  std::string text = json.dump(indent, ' ', false, Json::error_handler_t::replace);
  text = UnmarkPythonNumbers(text);
  if (final_newline) text += '\n';
  return text;
}

int JsonIndent(std::string_view text) {
  const size_t line = text.find('\n');
  if (line == std::string_view::npos) return 2;
  const size_t first = text.find_first_not_of(' ', line + 1);
  if (first == std::string_view::npos || first == line + 1) return 2;
  return static_cast<int>(first - line - 1);
}

}  // namespace quantport
