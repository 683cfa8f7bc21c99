#include "mapping/resolve.h"

#include <fmt/format.h>

#include <unordered_map>

#include "base/json.h"
#include "base/text.h"
#include "mapping/config_values.h"

namespace quantport {
namespace {

const Json& EmptyConfig() {
  static const Json kEmpty = Json::object();
  return kEmpty;
}

// The value at a dotted path, or null.
const Json* ValueAt(const Json& config, std::string_view path) {
  const Json* current = &config;
  for (const std::string_view part : SplitDots(path)) {
    const auto it = current->find(std::string(part));
    if (it == current->end() || it->is_null()) return nullptr;
    current = &*it;
  }
  return current;
}

// Older configs lack sub-configs that newer classes have; some then keep their values in the parent's own.
const Json& SubConfig(const Json& config, const ChildModel& child) {
  if (child.config.empty()) return config;
  const Json* found = ValueAt(config, child.config);
  if (found != nullptr && found->is_object()) return *found;
  return child.flat ? config : EmptyConfig();
}

bool Exists(const std::optional<ChildCondition>& when, const Json& config) {
  if (!when) return true;
  const Json* value = ValueAt(config, when->key);
  switch (when->test) {
    case ChildCondition::Test::kIsObject:
      return value != nullptr && value->is_object();
    case ChildCondition::Test::kIsAbsent:
      return value == nullptr;
    case ChildCondition::Test::kEquals:
      return (value == nullptr ? when->default_value : value->dump()) == when->value;
    case ChildCondition::Test::kDiffers:
      return (value == nullptr ? when->default_value : value->dump()) != when->value;
  }
  return true;
}

std::string ModelType(const Json& config, const std::string& fallback) {
  const auto it = config.find("model_type");
  return it != config.end() && it->is_string() ? it->get<std::string>() : fallback;
}

// Walks the composition from the root class down, as named_modules would walk the modules.
class Composer {
 public:
  explicit Composer(const Registry& registry) : registry_(registry) {}

  void Visit(const std::string& path, const std::string& class_name, const std::string& model_type, const Json& config,
             const std::vector<ChildModel>* inline_children, int depth) {
    submodels_.push_back({path, class_name, model_type, ExpertCounts(config)});
    const ModelClass* model = registry_.FindClass(class_name);
    const std::vector<ChildModel>* children = inline_children != nullptr ? inline_children
                                              : model != nullptr         ? &model->children
                                                                         : nullptr;
    // A mapping file of a stranger could nest a class in itself.
    if (children == nullptr || depth > 32) return;
    for (const ChildModel& child : *children) {
      if (Exists(child.when, config)) VisitChild(path, model_type, child, config, depth);
    }
  }

  std::vector<SubModel> Take() { return std::move(submodels_); }
  Errors TakeErrors() { return std::move(errors_); }

 private:
  void VisitChild(const std::string& parent_path, const std::string& parent_type, const ChildModel& child,
                  const Json& config, int depth) {
    const Json& sub_config = SubConfig(config, child);
    const std::string path = parent_path.empty() ? child.path : parent_path + "." + child.path;
    const std::vector<ChildModel>* own_children = child.has_children ? &child.children : nullptr;
    std::string model_type = child.model_type_fixed ? child.model_type : ModelType(sub_config, child.model_type);
    if (child.config.empty()) model_type = parent_type;
    std::string picked_by = model_type;
    if (const auto alias = child.aliases.find(model_type); alias != child.aliases.end()) {
      model_type = alias->second.model_type;
      picked_by = alias->second.config;
    }
    if (child.auto_class.empty()) {
      Visit(path, child.class_name, model_type, sub_config, own_children, depth + 1);
      return;
    }
    const std::string* picked = registry_.FindAuto(child.auto_class, picked_by);
    if (picked == nullptr) picked = registry_.FindAuto(child.auto_fallback, picked_by);
    if (picked == nullptr) {
      errors_.push_back(
          {ErrorKind::kUnknownArchitecture,
           fmt::format("{} of config.json has the model_type \"{}\", which is not in the mapping of {}", child.config,
                       picked_by, registry_.version()),
           {},
           {},
           "supply a mapping of your transformers version or your own model with --mapping FILE (docs/mappings.md)"});
      return;
    }
    Visit(path, *picked, model_type, sub_config, picked_by == child.model_type ? own_children : nullptr, depth + 1);
  }

  const Registry& registry_;
  std::vector<SubModel> submodels_;
  Errors errors_;
};

// Paths that have claimed an identifier; an ancestor's claim covers what lies below it.
class Claims {
 public:
  bool Covered(const std::string& identifier, const std::string& path) const {
    const auto it = paths_.find(identifier);
    if (it == paths_.end()) return false;
    for (const std::string& seen : it->second) {
      if (seen.empty() || path.starts_with(seen + ".")) return true;
    }
    return false;
  }
  void Add(const std::string& identifier, const std::string& path) { paths_[identifier].push_back(path); }

 private:
  std::unordered_map<std::string, std::vector<std::string>> paths_;
};

// transformers' get_model_conversion_mapping: class name first, then model_type.
std::vector<Transform> CollectTransforms(const Registry& registry, const std::vector<SubModel>& submodels,
                                         const std::string& base_model_prefix) {
  std::vector<Transform> transforms;
  Claims claims;
  for (const SubModel& model : submodels) {
    if (claims.Covered(model.class_name, model.path)) continue;
    const std::vector<Transform>* found = registry.FindConversions(model.class_name);
    const bool by_class = found != nullptr;
    if (!by_class) {
      if (claims.Covered(model.model_type, model.path)) continue;
      found = registry.FindConversions(model.model_type);
    }
    if (found == nullptr) continue;
    std::string_view scope = model.path;
    if (scope.starts_with(base_model_prefix)) scope.remove_prefix(base_model_prefix.size());
    if (scope.starts_with('.')) scope.remove_prefix(1);
    for (Transform transform : *found) {
      if (!model.path.empty()) {
        transform.scope_prefix = std::string(scope);
        transform.base_model_prefix = base_model_prefix;
      }
      transforms.push_back(std::move(transform));
    }
    claims.Add(model.class_name, model.path);
    if (!by_class) claims.Add(model.model_type, model.path);
  }
  return transforms;
}

Result<std::string> ChooseArchitecture(const Json& config, std::string_view file, const ResolveOptions& options) {
  if (options.architecture) return *options.architecture;
  const auto it = config.find("architectures");
  if (it == config.end() || !it->is_array() || it->empty() || !it->front().is_string()) {
    return Error{ErrorKind::kInvalidConfig,
                 "config.json names no architecture",
                 std::string(file),
                 {},
                 "name the model class with --architecture"};
  }
  return it->front().get<std::string>();
}

constexpr std::string_view kClassRemedy =
    "name a class it has with --architecture, or supply a mapping of your transformers version or your own model with "
    "--mapping FILE (docs/mappings.md)";

Result<Json> ParseConfig(std::string_view text, std::string_view file) {
  auto config = ParseJson(text, file, ErrorKind::kInvalidConfig);
  if (!config) return config.errors();
  if (!config->is_object()) return Error{ErrorKind::kInvalidConfig, "not a JSON object", std::string(file), {}, {}};
  return config;
}

bool HasOwnCode(const Json& config) {
  const auto it = config.find("auto_map");
  return it != config.end() && it->is_object() && !it->empty();
}

// The class of the registry that a config.json leads to; null: none. A class given by the user is that one or none.
const std::string* FindClassName(const Registry& registry, const Json& config, const std::string& architecture,
                                 const ResolveOptions& options) {
  if (const std::string* name = registry.FindClassName(architecture)) return name;
  return options.architecture ? nullptr : registry.PickClass(ModelType(config, ""), architecture);
}

}  // namespace

Result<ResolvedModel> ResolveModel(const Registry& registry, std::string_view config_text, std::string_view file,
                                   const ResolveOptions& options) {
  auto config = ParseConfig(config_text, file);
  if (!config) return config.errors();
  auto architecture = ChooseArchitecture(*config, file, options);
  if (!architecture) return architecture.errors();
  const std::string* name = FindClassName(registry, *config, *architecture, options);
  if (name == nullptr) {
    return Error{ErrorKind::kUnknownArchitecture,
                 fmt::format("the model class {} is not in the mapping of {}", *architecture, registry.version()),
                 std::string(file),
                 {},
                 std::string(kClassRemedy)};
  }
  ResolvedModel resolved;
  resolved.architecture = *name;
  if (*name != *architecture) resolved.stated_class = *architecture;
  const ModelClass& model = *registry.FindClass(*name);
  resolved.base_model_prefix = model.base_model_prefix;
  resolved.tied_weights = model.tied_weights;
  Composer composer(registry);
  composer.Visit("", *name, ModelType(*config, model.model_type), *config, nullptr, 0);
  if (Errors errors = composer.TakeErrors(); !errors.empty()) {
    for (Error& error : errors) error.file = file;
    return errors;
  }
  resolved.submodels = composer.Take();
  resolved.transforms = CollectTransforms(registry, resolved.submodels, model.base_model_prefix);
  FillConfigValues(*config, &resolved);
  return resolved;
}

Result<bool> KnowsClass(const Registry& registry, std::string_view config_text, std::string_view file) {
  auto config = ParseConfig(config_text, file);
  if (!config) return config.errors();
  auto architecture = ChooseArchitecture(*config, file, {});
  if (!architecture) return architecture.errors();
  return FindClassName(registry, *config, *architecture, {}) != nullptr;
}

Result<ResolvedModel> UnmappedModel(std::string_view config_text, std::string_view file, const std::string& remedy) {
  auto config = ParseConfig(config_text, file);
  if (!config) return config.errors();
  auto architecture = ChooseArchitecture(*config, file, {});
  if (!architecture) return architecture.errors();
  ResolvedModel resolved;
  resolved.architecture = *architecture;
  if (HasOwnCode(*config)) {
    resolved.unmapped = {
        "remote-code",
        fmt::format("{} is code of the checkpoint's own (auto_map), which no mapping covers: names are "
                    "taken as they are",
                    *architecture),
        0,
        {},
        {}};
    return resolved;
  }
  const std::string model_type = ModelType(*config, "");
  resolved.unmapped = {
      "unknown-architecture",
      fmt::format("no transformers whose mapping is built in knows {}{}: names are taken as they are", *architecture,
                  model_type.empty() ? "" : fmt::format(" or a model_type {}", model_type)),
      0,
      {},
      remedy};
  return resolved;
}

bool HasOwnCode(std::string_view config_text) {
  const auto config = ParseConfig(config_text, {});
  return config && HasOwnCode(*config);
}

}  // namespace quantport
