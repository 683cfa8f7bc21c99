#include "prepare/plain_config.h"

#include <array>

#include "base/json.h"

namespace quantport {
namespace {

constexpr std::array<const char*, 3> kQuantizations = {"quantization_config", "compression_config", "quantization"};

bool EraseFrom(Json* object) {
  bool erased = false;
  for (const char* key : kQuantizations) erased |= object->erase(key) > 0;
  return erased;
}

}  // namespace

Result<std::string> WithoutQuantization(const std::string& config, std::string_view file) {
  auto json = ParseJson(config, file, ErrorKind::kInvalidConfig);
  if (!json) return json.errors();
  if (!json->is_object()) return Error{ErrorKind::kInvalidConfig, "not a JSON object", std::string(file), {}, {}};
  bool erased = EraseFrom(&*json);
  if (auto text = json->find("text_config"); text != json->end() && text->is_object()) erased |= EraseFrom(&*text);
  return erased ? DumpJson(*json, StyleOf(config)) : config;
}

std::string StatedDType(const std::string& config) {
  const auto json = ParseJson(config, "", ErrorKind::kInvalidConfig);
  if (!json || !json->is_object()) return {};
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto found = json->find(key);
    if (found != json->end() && found->is_string()) return found->get<std::string>();
  }
  return {};
}

}  // namespace quantport
