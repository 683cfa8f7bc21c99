#pragma once

#include <optional>
#include <vector>

#include "quantport/quantport.h"

namespace quantport::python {

// All that the command `rules` tells.
struct RulesAnswer {
  RulesReport rules;
  std::vector<ExplainedName> names;
  std::optional<RuleComparison> comparison;
};

// The built-in recipes.
struct RecipeList {};

}  // namespace quantport::python
