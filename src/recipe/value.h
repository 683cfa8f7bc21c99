// YAML as ModelOpt reads it (PyYAML's safe_load: YAML 1.1), with the file and line of every value.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "quantport/error.h"

namespace quantport {

struct YamlValue {
  enum class Kind : uint8_t { kNull, kBool, kInt, kFloat, kString, kList, kMap };

  Kind kind = Kind::kNull;
  bool boolean = false;
  int64_t integer = 0;
  double number = 0;
  std::string text;              // of a string
  std::vector<YamlValue> keys;   // of a map, scalars, each once
  std::vector<YamlValue> items;  // of a list, or the values of `keys`
  std::shared_ptr<const std::string> file;
  int line = 0;  // from 1

  bool IsMap() const { return kind == Kind::kMap; }
  bool IsList() const { return kind == Kind::kList; }
  bool IsString() const { return kind == Kind::kString; }
  bool IsNull() const { return kind == Kind::kNull; }

  // The value of a string key of a map; nullptr where there is none.
  const YamlValue* Find(std::string_view key) const;
  // Sets a key of a map, in its place where it is there already.
  void Set(const YamlValue& key, YamlValue value);
  void Erase(std::string_view key);
  // How many values this one consists of, itself included.
  size_t Size() const;
};

bool SameScalar(const YamlValue& a, const YamlValue& b);

// "a mapping", "a list", "the text 'x'", for messages.
std::string Described(const YamlValue& value);

Json ToJson(const YamlValue& value);

// The documents of a text, one or more. Bounded whatever the text: at most 1 MiB, 64 levels and 100,000 values with
// aliases expanded. Errors: kInvalidRecipe naming `file` with the line.
Result<std::vector<YamlValue>> ParseYaml(std::string_view text, const std::string& file);

// Thrown and caught inside this folder only: a recipe is nested, and what is wrong in it ends the reading.
struct RecipeProblem {
  Error error;
};
[[noreturn]] void Fail(const YamlValue& at, std::string message, std::string hint = {});

}  // namespace quantport
