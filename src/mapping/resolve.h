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
#include "quantport/warning.h"

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
  // Set where config.json's class is unknown and its model_type picked `architecture`: the class as it stands there.
  std::optional<std::string> stated_class;
  // Set where nothing is known of the model: there is no mapping then, and why. Its names are taken as they are.
  std::optional<Warning> unmapped;
};

struct ResolveOptions {
  std::optional<std::string> architecture;  // instead of config.json's `architectures`
};

// `config_text` is the config.json, `file` its name for errors. The class is the one that config.json names, or where
// the registry has none of that name, the one that an auto class of transformers picks by model_type. Errors:
// kInvalidConfig; kUnknownArchitecture for a class or a sub-model that the registry does not have.
Result<ResolvedModel> ResolveModel(const Registry& registry, std::string_view config_text, std::string_view file,
                                   const ResolveOptions& options = {});

// Whether the registry knows the class of this config.json. Errors: kInvalidConfig.
Result<bool> KnowsClass(const Registry& registry, std::string_view config_text, std::string_view file);

// A model without a mapping. `remedy` is what to do about a class that should have one. Errors: kInvalidConfig.
Result<ResolvedModel> UnmappedModel(std::string_view config_text, std::string_view file, const std::string& remedy);

// Whether a config.json says that the model runs code of the checkpoint's own (auto_map).
bool HasOwnCode(std::string_view config_text);

}  // namespace quantport
