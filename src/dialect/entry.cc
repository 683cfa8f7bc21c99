#include "dialect/entry.h"

#include <cctype>

namespace quantport {

bool IsRegex(std::string_view entry) { return entry.starts_with(kRegexPrefix); }

bool IsGlob(std::string_view entry) { return !IsRegex(entry) && entry.find_first_of("*?[") != std::string_view::npos; }

bool IsClassName(std::string_view entry) {
  return !entry.empty() && std::isupper(static_cast<unsigned char>(entry[0])) != 0 &&
         entry.find('.') == std::string_view::npos && !IsGlob(entry);
}

}  // namespace quantport
