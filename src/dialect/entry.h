// What an entry of a list of modules is: a name, a glob or a regular expression.
#pragma once

#include <cstdint>
#include <string_view>

#include "dialect/claims.h"

namespace quantport {

inline constexpr std::string_view kRegexPrefix = "re:";

// How a producer writes the modules that a setting is for.
enum class EntrySyntax : uint8_t {
  kNames,     // names, globs and, behind "re:", regular expressions: ModelOpt, compressed-tensors, Quark
  kSegments,  // transformers' own quantizers
  kEnds,      // GPTQ's modules_in_block_to_quantize: the last segments of names
  kSigned,    // GPTQ's dynamic: regular expressions for the beginning, behind "+:", "-:" or nothing
  kSearched,  // auto-round's extra_config: names, and regular expressions for any part
};

Matching MatchingOf(std::string_view entry, EntrySyntax syntax);
// GPTQ's sign, or nothing.
std::string_view SignOf(std::string_view entry, EntrySyntax syntax);

bool IsGlob(std::string_view entry);
bool IsRegex(std::string_view entry);
// The names of module classes ("Linear") stand where module names may; they mean the same in every namespace.
bool IsClassName(std::string_view entry);
// Whether transformers and auto-round take an entry for a regular expression.
bool HasSpecialCharacters(std::string_view entry);

}  // namespace quantport
