// From a config.json to the transforms of its model: which sub-models it has, and what each brings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mapping/registry.h"
#include "mapping/transform.h"
#include "quantport/error.h"

namespace quantport {

// A number of experts that a config states, and the key it stands under.
struct ExpertCount {
  std::string key;
  uint64_t count = 0;
};

struct SubModel {
  std::string path;  // module path from the root, "" for the root itself
  std::string class_name;
  std::string model_type;
  std::vector<ExpertCount> experts = {};  // of each of its containers of experts, one of these
};

struct ResolvedModel {
  std::string architecture;
  std::string base_model_prefix;
  std::vector<SubModel> submodels;    // the root first, in the order of named_modules
  std::vector<Transform> transforms;  // in load order, with scopes
  std::vector<std::string> tied_weights;
  std::optional<uint64_t> num_hidden_layers;  // of the text model; absent where the config does not say
  std::optional<bool> tie_word_embeddings;
  // Set where the model runs code of its own that the registry does not know: there is no mapping then, and why.
  std::optional<std::string> remote_code;
};

struct ResolveOptions {
  std::optional<std::string> architecture;  // instead of config.json's `architectures`
};

// `config_text` is the config.json, `file` its name for errors.
// Errors: kInvalidConfig; kUnknownArchitecture for a class that is in no mapping and has no code of its own.
Result<ResolvedModel> ResolveModel(const Registry& registry, std::string_view config_text, std::string_view file,
                                   const ResolveOptions& options = {});

}  // namespace quantport
