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

// As Python's json.dump(..., indent=indent), and a final newline where `final_newline` says so.
std::string DumpJson(const Json& json, int indent, bool final_newline);

// The indentation that a JSON text uses (its second line's), 2 where it can't be told.
int JsonIndent(std::string_view text);

}  // namespace quantport
