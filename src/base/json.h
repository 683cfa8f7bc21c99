// JSON as Python writes it: config.json files of published models hold Infinity and NaN, which are no JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "quantport/error.h"

namespace quantport {

// Keeps the order of keys, which people diff.
using Json = nlohmann::ordered_json;

// Errors: `kind` naming `file`. Nesting deeper than 256 is refused. Infinity, -Infinity and NaN outside strings become
// marked strings, which DumpJson writes back as they were.
Result<Json> ParseJson(std::string_view text, std::string_view file, ErrorKind kind);

// How a JSON text is laid out, so that a changed one can be written alike.
struct JsonStyle {
  int indent = 2;  // -1: on one line
  bool final_newline = true;
  bool ascii = false;  // characters beyond ASCII are escaped, as Python does unless told otherwise
};

JsonStyle StyleOf(std::string_view text);

// As Python's json.dump with the same settings.
std::string DumpJson(const Json& json, const JsonStyle& style = {});

}  // namespace quantport
