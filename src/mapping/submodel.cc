#include "mapping/submodel.h"

#include "base/text.h"

namespace quantport {
namespace {

// The path of the only sub-model of a class.
std::optional<std::string> OnlyPath(const ResolvedModel& whole, const std::string& class_name) {
  std::optional<std::string> path;
  for (const SubModel& model : whole.submodels) {
    if (model.class_name != class_name || model.path.empty()) continue;
    if (path) return std::nullopt;
    path = model.path;
  }
  return path;
}

}  // namespace

std::string SubModelPlace::Translate(const std::string& name) const {
  if (base.empty()) return JoinName(path, name);
  if (name.starts_with(base + ".")) return path + name.substr(base.size());
  return name;
}

std::optional<SubModelPlace> FindSubModel(const ResolvedModel& part, const ResolvedModel& whole) {
  if (part.architecture == whole.architecture) return std::nullopt;
  if (const auto path = OnlyPath(whole, part.architecture)) return SubModelPlace{"", *path};
  for (const SubModel& model : part.submodels) {
    if (model.path.empty() || model.path != part.base_model_prefix) continue;
    if (const auto path = OnlyPath(whole, model.class_name)) return SubModelPlace{model.path, *path};
  }
  return std::nullopt;
}

}  // namespace quantport
