#include "recipe/builtin_data.h"

#include "base/embedded.h"

// builtin_recipes.inc, which CMake writes, is a line QUANTPORT_RECIPE(number, "path", "file") for every recipe.
#define QUANTPORT_RECIPE(number, path, file) QUANTPORT_EMBED(quantport_recipe_##number, file)
#include "builtin_recipes.inc"
#undef QUANTPORT_RECIPE

namespace quantport {

std::span<const BuiltInRecipe> BuiltInRecipes() {
#define QUANTPORT_RECIPE(number, path, file) {path, QUANTPORT_EMBEDDED(quantport_recipe_##number)},
  static const BuiltInRecipe kRecipes[] = {
#include "builtin_recipes.inc"
  };
#undef QUANTPORT_RECIPE
  return kRecipes;
}

}  // namespace quantport
