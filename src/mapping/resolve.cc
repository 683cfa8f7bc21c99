#include "mapping/resolve.h"

#include <fmt/format.h>

#include <unordered_map>

#include "base/json.h"
#include "base/text.h"

namespace quantport {
namespace {

const Json& EmptyConfig() {
  static const Json kEmpty = Json::object();
  return kEmpty;
}

// The sub-config at a dotted path, or an empty one: older configs lack sub-configs that newer classes have.
const Json& SubConfig(const Json& config, std::string_view path) {
  const Json* current = &config;
  if (path.empty()) return *current;
  for (const std::string_view part : SplitDots(path)) {
    const auto it = current->find(std::string(part));
    if (it == current->end() || !it->is_object()) return EmptyConfig();
    current = &*it;
  }
  return *current;
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
    submodels_.push_back({path, class_name, model_type});
    const ModelClass* model = registry_.FindClass(class_name);
    const std::vector<ChildModel>* children = inline_children != nullptr ? inline_children
                                              : model != nullptr         ? &model->children
                                                                         : nullptr;
    // A mapping file of a stranger could nest a class in itself.
    if (children == nullptr || depth > 32) return;
    for (const ChildModel& child : *children) VisitChild(path, model_type, child, config, depth);
  }

  std::vector<SubModel> Take() { return std::move(submodels_); }

 private:
  void VisitChild(const std::string& parent_path, const std::string& parent_type, const ChildModel& child,
                  const Json& config, int depth) {
    const Json& sub_config = SubConfig(config, child.config);
    const std::string path = parent_path.empty() ? child.path : parent_path + "." + child.path;
    const std::vector<ChildModel>* own_children = child.has_children ? &child.children : nullptr;
    if (child.auto_class.empty()) {
      // A class fixed in the code has a fixed config class too: whatever model_type the file states, the class
      // attribute wins, unless the child shares the parent's config.
      Visit(path, child.class_name, child.config.empty() ? parent_type : child.model_type, sub_config, own_children,
            depth + 1);
      return;
    }
    const std::string model_type = child.config.empty() ? parent_type : ModelType(sub_config, child.model_type);
    const std::string* picked = registry_.FindAuto(child.auto_class, model_type);
    if (picked == nullptr) return;
    Visit(path, *picked, model_type, sub_config, model_type == child.model_type ? own_children : nullptr, depth + 1);
  }

  const Registry& registry_;
  std::vector<SubModel> submodels_;
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

}  // namespace

Result<ResolvedModel> ResolveModel(const Registry& registry, std::string_view config_text, std::string_view file,
                                   const ResolveOptions& options) {
  auto config = ParseJson(config_text, file, ErrorKind::kInvalidConfig);
  if (!config) return config.errors();
  if (!config->is_object()) return Error{ErrorKind::kInvalidConfig, "not a JSON object", std::string(file), {}, {}};
  auto architecture = ChooseArchitecture(*config, file, options);
  if (!architecture) return architecture.errors();

  ResolvedModel resolved;
  resolved.architecture = *architecture;
  const ModelClass* model = registry.FindClass(*architecture);
  if (model == nullptr) {
    if (const auto it = config->find("auto_map"); it != config->end() && it->is_object() && !it->empty()) {
      resolved.remote_code = fmt::format(
          "{} is code of the checkpoint's own (auto_map), which no mapping covers: names are taken as they are",
          *architecture);
      return resolved;
    }
    return Error{ErrorKind::kUnknownArchitecture,
                 fmt::format("the model class {} is not in the mapping of {}", *architecture, registry.version()),
                 std::string(file),
                 {},
                 "name a class it has with --architecture, or supply a mapping of your transformers version or your "
                 "own model with --mapping FILE (docs/mappings.md)"};
  }
  resolved.base_model_prefix = model->base_model_prefix;
  resolved.tied_weights = model->tied_weights;
  Composer composer(registry);
  composer.Visit("", *architecture, ModelType(*config, model->model_type), *config, nullptr, 0);
  resolved.submodels = composer.Take();
  resolved.transforms = CollectTransforms(registry, resolved.submodels, model->base_model_prefix);
  return resolved;
}

}  // namespace quantport
