// Where recipe files are looked for: the library that is built in, folders that the user names, the file system.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "quantport/error.h"

namespace quantport {

// This room reads no files itself. `read` gives the text of a regular file, nothing where there is none.
struct RecipeSources {
  std::function<Result<std::optional<std::string>>(const std::string& path)> read;
  std::vector<std::string> folders;  // recipe libraries of the user's, in order
};

struct RecipeFile {
  std::string path;  // as messages name it; "built-in:configs/numerics/fp8.yaml" for a built-in one
  std::string text;
};

// The file that an import names, with or without .yml or .yaml. As in ModelOpt the file system comes first, relative to
// the working directory, so that a file beside the user replaces a built-in one; folders come between the two.
Result<std::optional<RecipeFile>> FindImport(const RecipeSources& sources, const std::string& name);

// The file that a recipe's name means. The user's own folders come first, since naming one says so; then, as in
// ModelOpt, the built-in library and then the file system. In a library a name is looked for as a path, then below
// general/ptq, among the presets of models, and below general; the names of modelopt.torch.quantization's constants
// (NVFP4_DEFAULT_CFG) mean the presets that those are read from. A folder with metadata and quantize files gives those
// two.
Result<std::vector<RecipeFile>> FindRecipe(const RecipeSources& sources, const std::string& name);

}  // namespace quantport
