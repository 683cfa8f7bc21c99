#include "base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/json_object.h"
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

// Builds what the parser reads, as the parser of the library itself would, in linear time.
class Builder : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t& value) override { return Add(Json::binary(std::move(value))); }
  bool start_object(size_t /*size*/) override { return Begin(true); }
  bool start_array(size_t /*size*/) override { return Begin(false); }
  bool key(string_t& value) override {
    levels_.back().key = std::move(value);
    return true;
  }
  bool end_object() override { return End(); }
  bool end_array() override { return End(); }
  bool parse_error(size_t /*position*/, const std::string& /*token*/, const nlohmann::json::exception& error) override {
    message_ = error.what();
    return false;
  }

  Json& root() { return root_; }
  const std::string& message() const { return message_; }

 private:
  struct Level {
    bool is_object = false;
    std::string key;
    JsonObjectBuilder object;
    Json array = Json::array();
  };

  bool Begin(bool is_object) {
    levels_.emplace_back().is_object = is_object;
    return true;
  }

  bool End() {
    Level level = std::move(levels_.back());
    levels_.pop_back();
    return Add(level.is_object ? level.object.Take() : std::move(level.array));
  }

  bool Add(Json value) {
    if (levels_.empty()) {
      root_ = std::move(value);
    } else if (levels_.back().is_object) {
      levels_.back().object.Set(levels_.back().key, std::move(value));
    } else {
      levels_.back().array.push_back(std::move(value));
    }
    return true;
  }

  Json root_;
  std::vector<Level> levels_;
  std::string message_;
};

// Fewer keys are found sooner one after the other.
constexpr size_t kFewKeys = 16;

}  // namespace

void JsonObjectBuilder::Set(const std::string& key, Json value) {
  if (object_.size() < kFewKeys) {
    for (auto& [name, old] : object_) {
      if (name != key) continue;
      old = std::move(value);
      return;
    }
    object_.emplace_back(key, std::move(value));
    return;
  }
  if (places_.empty()) {
    for (size_t i = 0; i < object_.size(); ++i)
      places_.emplace(std::next(object_.begin(), static_cast<std::ptrdiff_t>(i))->first, i);
  }
  const auto [place, fresh] = places_.emplace(key, object_.size());
  if (fresh) {
    object_.emplace_back(key, std::move(value));
  } else {
    std::next(object_.begin(), static_cast<std::ptrdiff_t>(place->second))->second = std::move(value);
  }
}

Json JsonObjectBuilder::Take() {
  places_.clear();
  return Json(std::exchange(object_, {}));
}

Result<Json> ParseJson(std::string_view text, std::string_view file, ErrorKind kind) {
  // Counted beforehand: the parser's callbacks, which tell of depth too, make it take quadratic time on a long list.
  if (IsNestedDeeper(text, kMaxDepth))
    return Error{kind, fmt::format("JSON nested deeper than {}", kMaxDepth), std::string(file), {}, {}};
  Builder builder;
  if (!Json::sax_parse(MarkPythonNumbers(text), &builder))
    return Error{kind, fmt::format("invalid JSON: {}", builder.message()), std::string(file), {}, {}};
  return std::move(builder.root());
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
