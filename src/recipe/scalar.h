// What a plain scalar of YAML 1.1 means, by the rules of PyYAML's safe_load.
#pragma once

#include <string>
#include <string_view>

namespace quantport {

struct YamlValue;

// `tag` as yaml-cpp tells it: "?" for plain, "!" for quoted, or a written one. False where the tag is none of YAML's
// own for scalars, or the text does not fit it. Sexagesimal numbers and dates, which no recipe holds, stay texts.
bool ResolveScalar(std::string_view text, std::string_view tag, YamlValue* value);

}  // namespace quantport
