// From YAML to what a recipe is made of, with every value checked as ModelOpt's schemas do.
#pragma once

#include <optional>
#include <string_view>
#include <utility>

#include "recipe/recipe.h"
#include "recipe/schema.h"
#include "recipe/value.h"

namespace quantport {

// "e4m3" or "E4M3" -> {4, 3}.
std::optional<std::pair<int, int>> ParseBits(std::string_view text);

// These throw RecipeProblem.
QuantizerAttributes ParseAttributes(const YamlValue& value);
RecipeEntry ParseEntry(const YamlValue& value);
std::vector<RecipeEntry> ParseEntries(const YamlValue& value);
std::vector<RecipeAlgorithm> ParseAlgorithms(const YamlValue& value);

// Whether an imported file holds what its modelopt-schema comment says.
void CheckAgainstSchema(const YamlValue& value, const Schema& schema);

// That a mapping has no keys but these.
void CheckKeys(const YamlValue& map, std::initializer_list<std::string_view> known, std::string_view what);

}  // namespace quantport
