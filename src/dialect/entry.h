// What an entry of a list of modules is: a name, a glob or a regular expression.
#pragma once

#include <string_view>

namespace quantport {

inline constexpr std::string_view kRegexPrefix = "re:";

bool IsGlob(std::string_view entry);
bool IsRegex(std::string_view entry);
// The names of module classes ("Linear") stand where module names may; they mean the same in every namespace.
bool IsClassName(std::string_view entry);

}  // namespace quantport
