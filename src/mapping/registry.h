// What a transformers version knows of its model classes: composition of sub-models and conversion mappings, as data.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mapping/builtin_data.h"
#include "mapping/transform.h"
#include "quantport/error.h"

namespace quantport {

// Whether a sub-model exists, by a value in the parent's config.
struct ChildCondition {
  enum class Test { kIsObject, kIsAbsent, kEquals, kDiffers };
  Test test = Test::kEquals;
  std::string key;            // dotted path in the parent's config
  std::string value;          // of kEquals and kDiffers, as JSON text
  std::string default_value;  // what a missing or null value stands for, as JSON text
};

// What transformers turns a model_type found in a sub-config into.
struct ModelTypeAlias {
  std::string model_type;  // that the sub-model's config ends up with
  std::string config;      // the model_type that picks its class
};

// A sub-model directly below a class, with no other sub-model between.
struct ChildModel {
  std::string path;               // module path relative to the parent
  std::string config;             // path of its sub-config in the parent's config, "" for the parent's own
  std::string class_name;         // fixed in the code; empty where an auto class picks it
  std::string auto_class;         // for example "AutoModel"
  std::string auto_fallback;      // asked where auto_class does not know the model_type
  std::string model_type;         // where the sub-config or its model_type is missing
  bool model_type_fixed = false;  // a model_type found in the sub-config is ignored
  bool flat = false;              // the parent's own config stands in for a missing sub-config (old, flat configs)
  std::unordered_map<std::string, ModelTypeAlias> aliases;
  std::optional<ChildCondition> when;
  // Where this child differs from its class standing alone, its own composition.
  bool has_children = false;
  std::vector<ChildModel> children;
};

struct ModelClass {
  std::string model_type;
  std::string base_model_prefix;
  std::vector<std::string>
      tied_weights;  // in-memory names that may share another's storage, as transformers states them
  std::vector<ChildModel> children;
};

class Registry {
 public:
  // Reads a mapping file (docs/mappings.md). Errors: kInvalidMapping naming `file` and the entry.
  static Result<Registry> Parse(std::string_view json, std::string_view file);
  // The data inside the library, of one of its transformers versions: parsed once in a process, since it takes longer
  // than all else that a small checkpoint asks for.
  static Result<std::shared_ptr<const Registry>> BuiltIn(const BuiltInMapping& mapping);

  const ModelClass* FindClass(const std::string& name) const;
  // The name as the registry holds it, or null.
  const std::string* FindClassName(const std::string& name) const;
  // The class that an auto class picks for a model_type: of those with the head that `like` has ("ForCausalLM"), or
  // with one that generates text, or the base model. Null where no class is of this model_type.
  const std::string* PickClass(const std::string& model_type, std::string_view like) const;
  // The transforms of a class name or model_type, or null.
  const std::vector<Transform>* FindConversions(const std::string& key) const;
  // The class that `auto_class` picks for a model_type, or null.
  const std::string* FindAuto(const std::string& auto_class, const std::string& model_type) const;

  // "transformers 5.17.0"
  const std::string& version() const { return version_; }
  PatternRules pattern_rules() const { return pattern_rules_; }

 private:
  std::string version_;
  PatternRules pattern_rules_ = PatternRules::kAnywhere;
  std::unordered_map<std::string, ModelClass> classes_;
  std::unordered_map<std::string, std::vector<Transform>> conversions_;
  std::unordered_map<std::string, std::unordered_map<std::string, std::string>> auto_;
};

}  // namespace quantport
