// Recipes of strangers: whatever the text, reading ends, and what was read holds together.
#include <string>

#include "check.h"
#include "recipe/load.h"
#include "recipe/resolve.h"

namespace quantport {
namespace {

using fuzz::Check;

// A module of every kind that has quantizers.
const std::vector<QuantizableModule>& Modules() {
  static const std::vector<QuantizableModule> kModules = {
      {"lm_head", ModuleKind::kLinear, "Linear"},
      {"model.embed_tokens", ModuleKind::kEmbedding, "Embedding"},
      {"model.layers.0.mlp.down_proj", ModuleKind::kLinear, "Linear"},
      {"model.layers.0.mlp.experts", ModuleKind::kFusedExperts, "Experts", 2, true},
      {"model.layers.0.mlp.up_experts", ModuleKind::kFusedExperts, "Experts", 2, false},
      {"model.layers.0.self_attn", ModuleKind::kAttention, "Attention"},
      {"visual.norm", ModuleKind::kInputOnly, "BatchNorm2d"},
      {"visual.patch", ModuleKind::kConvolution, "Conv2d"},
  };
  return kModules;
}

// The input is a file that may import others: "text \0 text \0 ...", of which the first is the recipe and the n-th is
// the file n.
RecipeSources SourcesOf(const std::vector<std::string>& files) {
  RecipeSources sources;
  sources.read = [&files](const std::string& path) -> Result<std::optional<std::string>> {
    for (size_t i = 0; i < files.size(); ++i) {
      if (path == std::to_string(i) + ".yaml") return std::optional<std::string>(files[i]);
    }
    return std::optional<std::string>();
  };
  return sources;
}

void CheckErrors(const Errors& errors) {
  Check(!errors.empty(), "a failure has an error");
  for (const Error& error : errors) {
    Check(!error.message.empty(), "an error says what is wrong");
    Check(error.kind == ErrorKind::kInvalidRecipe || error.kind == ErrorKind::kUnsupportedRecipe, "of a recipe");
  }
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  std::vector<std::string> files(1);
  for (size_t i = 0; i < size && files.size() < 8; ++i) {
    if (data[i] == 0) {
      files.emplace_back();
    } else {
      files.back().push_back(static_cast<char>(data[i]));
    }
  }
  const RecipeSources sources = SourcesOf(files);
  const auto recipe = LoadRecipe("0.yaml", sources);
  if (!recipe) {
    CheckErrors(recipe.errors());
    return 0;
  }
  for (const RecipeEntry& entry : recipe->entries) Check(!entry.place.empty(), "an entry knows its place");
  static_cast<void>(ToJson(*recipe).dump(-1, ' ', false, Json::error_handler_t::replace));
  if (const Status status = CheckAlgorithms(*recipe); !status) CheckErrors(status.errors());
  const auto model = ResolveQuantizers(*recipe, Modules());
  if (!model) {
    CheckErrors(model.errors());
    return 0;
  }
  Check(model->modules.size() == Modules().size(), "every module is resolved");
  for (const ResolvedModule& module : model->modules) {
    for (const ResolvedQuantizer& quantizer : module.quantizers) {
      Check(quantizer.attributes != nullptr && !quantizer.attributes->empty(), "a quantizer has attributes");
    }
  }
  return 0;
}
