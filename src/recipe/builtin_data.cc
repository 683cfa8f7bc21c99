#include "recipe/builtin_data.h"

// builtin_recipes.inc, which CMake writes, is a line QUANTPORT_RECIPE(number, "path", "file") for every recipe.
#define QUANTPORT_RECIPE(number, path, file)         \
  __asm__(                                           \
      ".pushsection .rodata\n"                       \
      ".global quantport_recipe_" #number            \
      "\n"                                           \
      "quantport_recipe_" #number                    \
      ":\n"                                          \
      ".incbin \"" file                              \
      "\"\n"                                         \
      ".global quantport_recipe_end_" #number        \
      "\n"                                           \
      "quantport_recipe_end_" #number                \
      ":\n"                                          \
      ".byte 0\n"                                    \
      ".popsection\n");                              \
  extern "C" const char quantport_recipe_##number[]; \
  extern "C" const char quantport_recipe_end_##number[];
#include "builtin_recipes.inc"
#undef QUANTPORT_RECIPE

namespace quantport {

std::span<const BuiltInRecipe> BuiltInRecipes() {
#define QUANTPORT_RECIPE(number, path, file) \
  {path, {quantport_recipe_##number, static_cast<size_t>(quantport_recipe_end_##number - quantport_recipe_##number)}},
  static const BuiltInRecipe kRecipes[] = {
#include "builtin_recipes.inc"
  };
#undef QUANTPORT_RECIPE
  return kRecipes;
}

}  // namespace quantport
