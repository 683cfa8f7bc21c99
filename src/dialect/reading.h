// What the readers of all dialects share: values of a JSON object that may be missing or of another type.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "dialect/claims.h"

namespace quantport {

std::string StringAt(const Json& object, const char* key);
bool TrueAt(const Json& object, const char* key);
uint64_t SizeAt(const Json& object, const char* key);  // 0 where there is none
// An object at a key, or an empty one.
const Json& ObjectAt(const Json& object, const char* key);
// [rows, columns], or one number for both.
std::optional<std::array<uint64_t, 2>> TileAt(const Json& object, const char* key);
// Appends the strings of a list at a key.
void AppendStrings(const Json& object, const char* key, std::vector<std::string>* out);
// The same where there may be one string instead of a list, or lists in the list.
void AppendNestedStrings(const Json& object, const char* key, std::vector<std::string>* out);

bool EqualsIgnoringCase(std::string_view a, std::string_view b);

// Which method the object states, without regard to case.
bool IsMethod(const Json& quantization, std::string_view method);

// Claims of a dialect with one scheme, which speaks of all linears.
ConfigClaims GlobalClaims(std::string_view method, const Json& quantization, WeightScheme scheme);

// Rules for the entries at `keys` that name modules left unquantized, which are noted as the exclude list.
void AddExcluded(const Json& quantization, std::initializer_list<const char*> keys, Matching matching,
                 ConfigClaims* claims);
// The same for lists of names, globs and, behind "re:", regular expressions.
void AddMixedExcluded(const Json& quantization, std::initializer_list<const char*> keys, ConfigClaims* claims);

}  // namespace quantport
