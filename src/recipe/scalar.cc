#include "recipe/scalar.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "recipe/value.h"

namespace quantport {
namespace {

template <size_t n>
bool OneOf(std::string_view text, const std::array<std::string_view, n>& words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

bool IsNull(std::string_view text) {
  return OneOf(text, std::array<std::string_view, 5>{"", "~", "null", "Null", "NULL"});
}

std::optional<bool> Boolean(std::string_view text) {
  if (OneOf(text, std::array<std::string_view, 9>{"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}))
    return true;
  if (OneOf(text, std::array<std::string_view, 9>{"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}))
    return false;
  return std::nullopt;
}

std::string WithoutUnderscores(std::string_view text) {
  std::string out(text);
  out.erase(std::remove(out.begin(), out.end(), '_'), out.end());
  return out;
}

bool OnlyDigits(std::string_view text, std::string_view digits) {
  return !text.empty() && text.find_first_not_of(digits) == std::string_view::npos;
}

std::optional<int64_t> Integer(std::string_view text) {
  const bool negative = !text.empty() && text[0] == '-';
  if (negative || (!text.empty() && text[0] == '+')) text.remove_prefix(1);
  int base = 10;
  std::string_view digits = text;
  if (text.starts_with("0b")) {
    base = 2;
    digits = text.substr(2);
  } else if (text.starts_with("0x")) {
    base = 16;
    digits = text.substr(2);
  } else if (text.size() > 1 && text[0] == '0') {
    base = 8;
  }
  constexpr std::string_view kDigits = "0123456789abcdefABCDEF";
  const std::string_view allowed = base == 16 ? kDigits : kDigits.substr(0, static_cast<size_t>(base));
  if (!OnlyDigits(digits, std::string(allowed) + "_")) return std::nullopt;
  if (base == 10 && digits[0] == '_') return std::nullopt;
  const std::string clean = WithoutUnderscores(digits);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(clean.data(), clean.data() + clean.size(), value, base);
  if (error != std::errc() || end != clean.data() + clean.size()) return std::nullopt;
  return negative ? -value : value;
}

// digits "." digits, with an exponent only where it has a sign: 1e5 is a text in YAML 1.1.
std::optional<double> Float(std::string_view text) {
  const std::string_view whole = text;
  const bool sign = !text.empty() && (text[0] == '-' || text[0] == '+');
  if (sign) text.remove_prefix(1);
  const double infinity = std::numeric_limits<double>::infinity();
  if (OneOf(text, std::array<std::string_view, 3>{".inf", ".Inf", ".INF"}))
    return whole[0] == '-' ? -infinity : infinity;
  if (!sign && OneOf(text, std::array<std::string_view, 3>{".nan", ".NaN", ".NAN"})) return std::nan("");
  const size_t dot = text.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const size_t exponent = text.find_first_of("eE", dot);
  const std::string_view before = text.substr(0, dot);
  const std::string_view after =
      text.substr(dot + 1, exponent == std::string_view::npos ? exponent : exponent - dot - 1);
  constexpr std::string_view kDigits = "0123456789_";
  // A dot may begin a number, but not after a sign.
  if (before.empty() ? sign || !OnlyDigits(after, kDigits) || after[0] == '_'
                     : !OnlyDigits(before, kDigits) || before[0] == '_')
    return std::nullopt;
  if (!after.empty() && !OnlyDigits(after, kDigits)) return std::nullopt;
  if (exponent != std::string_view::npos) {
    const std::string_view power = text.substr(exponent + 1);
    if (power.size() < 2 || (power[0] != '-' && power[0] != '+') || !OnlyDigits(power.substr(1), "0123456789"))
      return std::nullopt;
  }
  const std::string clean = WithoutUnderscores(text);
  double value = 0;
  const auto [end, error] = std::from_chars(clean.data(), clean.data() + clean.size(), value);
  if (error != std::errc() || end != clean.data() + clean.size()) return std::nullopt;
  return whole[0] == '-' ? -value : value;
}

void SetText(std::string_view text, YamlValue* value) {
  value->kind = YamlValue::Kind::kString;
  value->text = text;
}

void ResolvePlain(std::string_view text, YamlValue* value) {
  if (IsNull(text)) {
    value->kind = YamlValue::Kind::kNull;
  } else if (const auto boolean = Boolean(text)) {
    value->kind = YamlValue::Kind::kBool;
    value->boolean = *boolean;
  } else if (const auto integer = Integer(text)) {
    value->kind = YamlValue::Kind::kInt;
    value->integer = *integer;
  } else if (const auto number = Float(text)) {
    value->kind = YamlValue::Kind::kFloat;
    value->number = *number;
  } else {
    SetText(text, value);
  }
}

}  // namespace

bool ResolveScalar(std::string_view text, std::string_view tag, YamlValue* value) {
  constexpr std::string_view kYaml = "tag:yaml.org,2002:";
  if (tag == "!" || tag == "tag:yaml.org,2002:str") {
    SetText(text, value);
    return true;
  }
  ResolvePlain(text, value);
  if (tag == "?" || tag.empty()) return true;
  if (!tag.starts_with(kYaml)) return false;
  const std::string_view type = tag.substr(kYaml.size());
  if (type == "float" && value->kind == YamlValue::Kind::kInt) {
    value->kind = YamlValue::Kind::kFloat;
    value->number = static_cast<double>(value->integer);
  }
  return (type == "int" && value->kind == YamlValue::Kind::kInt) ||
         (type == "float" && value->kind == YamlValue::Kind::kFloat) ||
         (type == "bool" && value->kind == YamlValue::Kind::kBool) ||
         (type == "null" && value->kind == YamlValue::Kind::kNull);
}

}  // namespace quantport
