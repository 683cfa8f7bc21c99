// JSON objects of many keys: Json itself looks each new key up among all that are there.
#pragma once

#include <string>
#include <unordered_map>

#include "base/json.h"

namespace quantport {

class JsonObjectBuilder {
 public:
  // As object[key] = value.
  void Set(const std::string& key, Json value);
  Json Take();

 private:
  Json::object_t object_;
  std::unordered_map<std::string, size_t> places_;
};

}  // namespace quantport
