#include "safetensors/index.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "safetensors/json_text.h"

namespace quantport {
namespace {

namespace od = simdjson::ondemand;

std::string JsonString(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\\') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

class IndexParser {
 public:
  explicit IndexParser(std::string_view file) : file_(file) {}

  Result<Index> Parse(std::string_view text) {
    text_.emplace(text);
    od::document document;
    od::object object;
    if (text_->Open(&document) != simdjson::SUCCESS || document.get_object().get(object) != simdjson::SUCCESS) {
      return Fail("the index is not a JSON object");
    }
    bool has_weight_map = false;
    for (auto field : object) {
      std::string_view key;
      od::value value;
      if (text_->Unescape(field.key(), &key) != simdjson::SUCCESS) return Fail("invalid JSON in the index");
      const bool is_map = key == "weight_map";
      const bool is_metadata = key == "metadata";
      if (field.value().get(value) != simdjson::SUCCESS) return Fail("invalid JSON in the index");
      if (is_map) {
        if (has_weight_map) return Fail("weight_map stands twice");
        has_weight_map = true;
        if (!ParseWeightMap(value)) return std::move(errors_);
      } else if (is_metadata && !ParseMetadata(value)) {
        return std::move(errors_);
      }
    }
    if (document.current_location().error() != simdjson::OUT_OF_BOUNDS)
      return Fail("trailing characters after the index's JSON object");
    if (!has_weight_map) return Fail("the index has no weight_map");
    if (!errors_.empty()) return std::move(errors_);
    return std::move(index_);
  }

 private:
  Error Fail(std::string message, std::string_view tensor = {}) {
    return Error{ErrorKind::kInvalidIndex, std::move(message), std::string(file_), std::string(tensor), {}};
  }

  bool Stop(std::string message) {
    errors_.push_back(Fail(std::move(message)));
    return false;
  }

  bool ParseWeightMap(od::value value) {
    od::object object;
    if (value.get_object().get(object) != simdjson::SUCCESS) return Stop("weight_map is not an object");
    std::unordered_set<std::string> seen;
    for (auto field : object) {
      std::string_view text;
      if (text_->Unescape(field.key(), &text) != simdjson::SUCCESS) return Stop("invalid JSON in weight_map");
      std::string name(text);
      if (text_->Unescape(field.value().get_raw_json_string(), &text) != simdjson::SUCCESS) {
        return Stop(fmt::format("weight_map of \"{}\" is not a file name", name));
      }
      std::string shard(text);
      if (!IsPlainFileName(shard)) {
        errors_.push_back(Fail(fmt::format("\"{}\" is not a plain file name", shard), name));
      }
      if (!seen.insert(name).second) errors_.push_back(Fail("the name stands twice in weight_map", name));
      index_.weight_map.emplace_back(std::move(name), std::move(shard));
    }
    return true;
  }

  bool ParseMetadata(od::value value) {
    od::object object;
    if (value.get_object().get(object) != simdjson::SUCCESS) return Stop("metadata is not an object");
    for (auto field : object) {
      std::string_view text;
      od::value member;
      if (text_->Unescape(field.key(), &text) != simdjson::SUCCESS) return Stop("invalid JSON in metadata");
      std::string key(text);
      if (field.value().get(member) != simdjson::SUCCESS) return Stop("invalid JSON in metadata");
      // simdjson skips over values without reading them, and nlohmann stops at a NUL; this one is written out again.
      if (simdjson::to_json_string(member).get(text) != simdjson::SUCCESS ||
          text.find('\0') != std::string_view::npos || !nlohmann::json::accept(text))
        return Stop("invalid JSON in metadata");
      if (key != "total_size") {
        index_.other_metadata.emplace_back(std::move(key), std::string(text));
        continue;
      }
      // Some writers store it as a float (1.0e10) or leave nonsense in it; it is rebuilt on output, so any other
      // form is only dropped.
      const auto number = nlohmann::json::parse(text, nullptr, false);
      if (number.is_number_unsigned()) index_.total_size = number.get<uint64_t>();
    }
    return true;
  }

  std::string_view file_;
  std::optional<JsonText> text_;
  Index index_;
  Errors errors_;
};

}  // namespace

Result<Index> ParseIndex(std::string_view text, std::string_view file) { return IndexParser(file).Parse(text); }

std::string SerializeIndex(const Index& index) {
  auto map = index.weight_map;
  std::sort(map.begin(), map.end());
  std::string out = "{\n  \"metadata\": {";
  std::string_view separator = "\n";
  for (const auto& [key, value] : index.other_metadata) {
    out += fmt::format("{}    {}: {}", separator, JsonString(key), value);
    separator = ",\n";
  }
  if (index.total_size) {
    out += fmt::format("{}    \"total_size\": {}", separator, *index.total_size);
    separator = ",\n";
  }
  out += "\n  },\n  \"weight_map\": {";
  separator = "\n";
  for (const auto& [name, shard] : map) {
    out += fmt::format("{}    {}: {}", separator, JsonString(name), JsonString(shard));
    separator = ",\n";
  }
  out += "\n  }\n}\n";
  return out;
}

}  // namespace quantport
