// A JSON text for simdjson, with memory that is asked for where asking can fail: simdjson 3.0 allocates a place for the
// strings of a text by itself, and writes to it whether it got one or not.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>

namespace quantport {

class JsonText {
 public:
  explicit JsonText(std::string_view text) : size_(text.size()) {
    padded_.reserve(size_ + simdjson::SIMDJSON_PADDING);
    padded_ = text;
    strings_ = std::make_unique_for_overwrite<uint8_t[]>(size_ + simdjson::SIMDJSON_PADDING);
  }

  // Once. The document lives as long as this.
  simdjson::error_code Open(simdjson::ondemand::document* document) {
    const simdjson::padded_string_view view(padded_.data(), size_, padded_.capacity());
    const auto error = parser_.iterate(view).get(*document);
    if (error == simdjson::MEMALLOC) throw std::bad_alloc();
    return error;
  }

  // A string without its escapes, until the next one is asked for.
  simdjson::error_code Unescape(simdjson::simdjson_result<simdjson::ondemand::raw_json_string> raw,
                                std::string_view* out) {
    simdjson::ondemand::raw_json_string stored;
    if (const auto error = std::move(raw).get(stored); error != simdjson::SUCCESS) return error;
    uint8_t* to = strings_.get();
    return parser_.unescape(stored, to).get(*out);
  }

 private:
  const size_t size_;
  std::string padded_;
  std::unique_ptr<uint8_t[]> strings_;
  simdjson::ondemand::parser parser_;
};

}  // namespace quantport
