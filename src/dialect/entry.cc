#include "dialect/entry.h"

#include <cctype>

namespace quantport {

Matching MatchingOf(std::string_view entry, EntrySyntax syntax) {
  switch (syntax) {
    case EntrySyntax::kNames:
      return IsRegex(entry) ? Matching::kRegexStart : IsGlob(entry) ? Matching::kGlob : Matching::kExact;
    case EntrySyntax::kSegments:
      return Matching::kSegments;
    case EntrySyntax::kEnds:
      return Matching::kEnd;
    case EntrySyntax::kSigned:
      return Matching::kRegexStart;
    case EntrySyntax::kSearched:
      return HasSpecialCharacters(entry) ? Matching::kRegexSearch : Matching::kExact;
  }
  return Matching::kExact;
}

std::string_view SignOf(std::string_view entry, EntrySyntax syntax) {
  const bool is_signed = syntax == EntrySyntax::kSigned && (entry.starts_with("+:") || entry.starts_with("-:"));
  return entry.substr(0, is_signed ? 2 : 0);
}

bool IsRegex(std::string_view entry) { return entry.starts_with(kRegexPrefix); }

bool IsGlob(std::string_view entry) { return !IsRegex(entry) && entry.find_first_of("*?[") != std::string_view::npos; }

bool IsClassName(std::string_view entry) {
  return !entry.empty() && std::isupper(static_cast<unsigned char>(entry[0])) != 0 &&
         entry.find('.') == std::string_view::npos && !IsGlob(entry);
}

bool HasSpecialCharacters(std::string_view entry) {
  return entry.find_first_of("*+?^$()[]{}|\\") != std::string_view::npos;
}

}  // namespace quantport
