#include "dialect/reading.h"

#include <algorithm>
#include <cctype>

#include "dialect/entry.h"

namespace quantport {
namespace {

void AppendStringsOf(const Json& value, std::vector<std::string>* out) {
  if (value.is_string()) out->push_back(value.get<std::string>());
  if (!value.is_array()) return;
  for (const Json& item : value) AppendStringsOf(item, out);
}

}  // namespace

std::string StringAt(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

bool TrueAt(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}

uint64_t SizeAt(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_unsigned() ? it->get<uint64_t>() : 0;
}

const Json& ObjectAt(const Json& object, const char* key) {
  static const Json kNone = Json::object();
  const auto it = object.find(key);
  return it != object.end() && it->is_object() ? *it : kNone;
}

std::optional<std::array<uint64_t, 2>> TileAt(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array() || it->empty()) return std::nullopt;
  std::array<uint64_t, 2> tile{};
  for (size_t i = 0; i < 2; ++i) {
    const Json& size = it->size() > i ? (*it)[i] : it->front();
    if (!size.is_number_unsigned()) return std::nullopt;
    tile[i] = std::max<uint64_t>(1, size.get<uint64_t>());
  }
  return tile;
}

void AppendStrings(const Json& object, const char* key, std::vector<std::string>* out) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array()) return;
  for (const Json& item : *it) {
    if (item.is_string()) out->push_back(item.get<std::string>());
  }
}

void AppendNestedStrings(const Json& object, const char* key, std::vector<std::string>* out) {
  if (const auto it = object.find(key); it != object.end()) AppendStringsOf(*it, out);
}

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

bool IsMethod(const Json& quantization, std::string_view method) {
  return EqualsIgnoringCase(StringAt(quantization, "quant_method"), method);
}

ConfigClaims GlobalClaims(std::string_view method, const Json& quantization, WeightScheme scheme) {
  ConfigClaims claims;
  claims.method = method;
  for (const char* key : {"quant_algo", "quant_method", "format"}) {
    if (claims.algorithm.empty()) claims.algorithm = StringAt(quantization, key);
  }
  claims.schemes.push_back(std::move(scheme));
  claims.otherwise = Says::kQuantized;
  return claims;
}

void AddExcluded(const Json& quantization, std::initializer_list<const char*> keys, Matching matching,
                 ConfigClaims* claims) {
  std::vector<std::string> entries;
  for (const char* key : keys) AppendStrings(quantization, key, &entries);
  for (std::string& entry : entries) {
    claims->excludes.push_back(entry);
    claims->rules.push_back({std::move(entry), matching, Says::kPlain, 0});
  }
}

void AddMixedExcluded(const Json& quantization, std::initializer_list<const char*> keys, ConfigClaims* claims) {
  std::vector<std::string> entries;
  for (const char* key : keys) AppendStrings(quantization, key, &entries);
  for (std::string& entry : entries) {
    claims->excludes.push_back(entry);
    if (IsRegex(entry)) {
      claims->rules.push_back({std::move(entry), Matching::kRegexStart, Says::kPlain, 0});
    } else {
      const Matching matching = IsGlob(entry) ? Matching::kGlob : Matching::kExact;
      claims->rules.push_back({std::move(entry), matching, Says::kPlain, 0});
    }
  }
}

}  // namespace quantport
