#include "recipe/value.h"

#include <fmt/format.h>

#include "base/text.h"

namespace quantport {

const YamlValue* YamlValue::Find(std::string_view key) const {
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].IsString() && keys[i].text == key) return &items[i];
  }
  return nullptr;
}

void YamlValue::Set(const YamlValue& key, YamlValue value) {
  for (size_t i = 0; i < keys.size(); ++i) {
    if (SameScalar(keys[i], key)) {
      items[i] = std::move(value);
      return;
    }
  }
  keys.push_back(key);
  items.push_back(std::move(value));
}

void YamlValue::Erase(std::string_view key) {
  for (size_t i = 0; i < keys.size(); ++i) {
    if (!keys[i].IsString() || keys[i].text != key) continue;
    keys.erase(keys.begin() + static_cast<std::ptrdiff_t>(i));
    items.erase(items.begin() + static_cast<std::ptrdiff_t>(i));
    return;
  }
}

size_t YamlValue::Size() const {
  size_t size = 1 + keys.size();
  for (const YamlValue& item : items) size += item.Size();
  return size;
}

bool SameScalar(const YamlValue& a, const YamlValue& b) {
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case YamlValue::Kind::kNull:
      return true;
    case YamlValue::Kind::kBool:
      return a.boolean == b.boolean;
    case YamlValue::Kind::kInt:
      return a.integer == b.integer;
    case YamlValue::Kind::kFloat:
      return a.number == b.number;
    case YamlValue::Kind::kString:
      return a.text == b.text;
    case YamlValue::Kind::kList:
    case YamlValue::Kind::kMap:
      return false;
  }
  return false;
}

std::string Described(const YamlValue& value) {
  switch (value.kind) {
    case YamlValue::Kind::kNull:
      return "nothing";
    case YamlValue::Kind::kBool:
      return value.boolean ? "true" : "false";
    case YamlValue::Kind::kInt:
      return fmt::format("{}", value.integer);
    case YamlValue::Kind::kFloat:
      return fmt::format("{}", value.number);
    case YamlValue::Kind::kString:
      return fmt::format("\"{}\"", ShortenMiddle(Printable(value.text), 60));
    case YamlValue::Kind::kList:
      return "a list";
    case YamlValue::Kind::kMap:
      return "a mapping";
  }
  return {};
}

namespace {

std::string KeyText(const YamlValue& key) {
  if (key.IsString()) return key.text;
  if (key.kind == YamlValue::Kind::kInt) return fmt::format("{}", key.integer);
  return Described(key);
}

}  // namespace

Json ToJson(const YamlValue& value) {
  switch (value.kind) {
    case YamlValue::Kind::kNull:
      return nullptr;
    case YamlValue::Kind::kBool:
      return value.boolean;
    case YamlValue::Kind::kInt:
      return value.integer;
    case YamlValue::Kind::kFloat:
      return value.number;
    case YamlValue::Kind::kString:
      return value.text;
    case YamlValue::Kind::kList: {
      Json list = Json::array();
      for (const YamlValue& item : value.items) list.push_back(ToJson(item));
      return list;
    }
    case YamlValue::Kind::kMap: {
      Json map = Json::object();
      for (size_t i = 0; i < value.keys.size(); ++i) map[KeyText(value.keys[i])] = ToJson(value.items[i]);
      return map;
    }
  }
  return nullptr;
}

void Fail(const YamlValue& at, std::string message, std::string hint) {
  std::string place = at.file ? *at.file : std::string();
  if (at.line > 0) place += fmt::format(":{}", at.line);
  throw RecipeProblem{Error{ErrorKind::kInvalidRecipe, std::move(message), std::move(place), {}, std::move(hint)}};
}

}  // namespace quantport
