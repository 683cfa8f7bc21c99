// The recipes of data/recipes that are part of the library.
#pragma once

#include <span>
#include <string_view>

namespace quantport {

struct BuiltInRecipe {
  std::string_view path;  // below data/recipes, without ".yaml": "configs/numerics/fp8"
  std::string_view text;
};

// In order of path.
std::span<const BuiltInRecipe> BuiltInRecipes();

}  // namespace quantport
