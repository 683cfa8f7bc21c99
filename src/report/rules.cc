#include <fmt/format.h>

#include "base/json.h"
#include "io/file.h"
#include "load/load.h"
#include "quantport/quantport.h"
#include "report/transform_json.h"

namespace quantport {

std::vector<std::string> BuiltInTransformersVersions() {
  std::vector<std::string> versions;
  for (const BuiltInMapping& mapping : BuiltInMappings()) versions.emplace_back(mapping.version);
  return versions;
}

Result<RulesReport> Rules(const std::filesystem::path& checkpoint, const MappingOptions& options) {
  const auto file = checkpoint / "config.json";
  auto text = ReadTextFile(file, 64 << 20);
  if (!text) return text.errors();
  auto model = LoadModel(*text, file.string(), options);
  if (!model) return model.errors();
  const ResolvedModel& resolved = model->resolved;
  RulesReport report;
  report.architecture = resolved.architecture;
  report.mapping = model->version;
  report.mapping_reason = model->version_reason;
  Json json = {{"architecture", resolved.architecture},
               {"mapping", {{"version", model->version}, {"reason", model->version_reason}}},
               {"pattern_rules", static_cast<int>(model->pattern_rules)},
               {"submodels", Json::array()},
               {"transforms", Json::array()}};
  for (const SubModel& sub : resolved.submodels) {
    report.submodels.push_back({sub.path, sub.class_name, sub.model_type});
    json["submodels"].push_back({{"path", sub.path}, {"class", sub.class_name}, {"model_type", sub.model_type}});
  }
  for (const Transform& transform : resolved.transforms) {
    report.transforms.push_back(DescribeTransform(transform));
    json["transforms"].push_back(TransformJson(transform));
  }
  report.json = DumpJson(json);
  return report;
}

}  // namespace quantport
