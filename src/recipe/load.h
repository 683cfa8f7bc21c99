// Recipes by name: reading one, listing those that are built in, replacing what one says of the KV cache.
#pragma once

#include <string>
#include <vector>

#include "recipe/files.h"
#include "recipe/recipe.h"

namespace quantport {

// A recipe, or a preset (algorithm and quant_cfg without metadata), with all its imports. Errors: kInvalidRecipe or
// kUnsupportedRecipe naming file and line.
Result<Recipe> LoadRecipe(const std::string& name, const RecipeSources& sources);

// The entries of a KV preset: "fp8", "fp8_cast", "nvfp4_cast", ..., or "none", which turns KV quantizers off.
Result<std::vector<RecipeEntry>> LoadKvCache(const std::string& name, const RecipeSources& sources);

// Puts `entries` where the recipe spoke of KV quantizers by name, so that what it turns off afterwards stays off; at
// the end where it did not.
void ReplaceKvCache(const std::vector<RecipeEntry>& entries, Recipe* recipe);

struct RecipeSummary {
  std::string name;  // without the folder, as a user names it
  std::string path;  // in the library
  std::string description;
  std::string refused;  // why it can't be carried out; empty where it can
};

// The built-in recipes, then the presets of models, then recipes for single models by their paths in the library. A
// preset with the name of a recipe is left out.
std::vector<RecipeSummary> ListRecipes();
// The built-in KV presets.
std::vector<RecipeSummary> ListKvCaches();

}  // namespace quantport
