#include "report/rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "base/text.h"
#include "load/configs.h"
#include "load/load.h"
#include "mapping/renamer.h"
#include "plan/groups.h"
#include "quantport/quantport.h"
#include "report/transform_json.h"

namespace quantport {

std::vector<std::string> BuiltInTransformersVersions() {
  std::vector<std::string> versions;
  for (const BuiltInMapping& mapping : BuiltInMappings()) versions.emplace_back(mapping.version);
  return versions;
}

namespace {

// By config.json alone, which is all that some have at hand.
Result<ModelMapping> ModelOf(const Storage& storage, const std::string& address, const MappingOptions& options) {
  auto folder = storage.OpenFolder(address);
  if (!folder) return folder.errors();
  if (auto status = (*folder)->CheckNoUnfinishedChange(); !status) return status.errors();
  auto text = ReadConfigText(**folder, kConfigName);
  if (!text) return text.errors();
  return LoadModel(*text, (*folder)->AddressOf(kConfigName), options);
}

}  // namespace

Result<RulesReport> Rules(const std::string& checkpoint, const MappingOptions& options, const Storage& storage) {
  auto model = ModelOf(storage, checkpoint, options);
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
  if (resolved.unmapped) {
    report.unmapped = resolved.unmapped->ToString();
    json["unmapped"] = report.unmapped;
  }
  if (auto note = ClassNote(resolved)) report.notes.push_back(std::move(*note));
  if (!report.notes.empty()) json["notes"] = report.notes;
  report.json = DumpJson(json);
  return report;
}

namespace {

// Names of the checkpoint go first, so that guards are where loading or saving it would have them.
Result<Renamer> MakeRenamer(const ResolvedModel& model, Renamer::Direction direction,
                            const std::vector<std::string>& checkpoint) {
  auto renamer = Renamer::Create(model.transforms, direction);
  if (!renamer) return renamer.errors();
  for (const std::string& name : checkpoint) renamer->Rename(name);
  return renamer;
}

std::vector<NameStep> Trace(const ResolvedModel& model, const Renamer& renamer, const std::string& name) {
  std::vector<NameStep> steps;
  for (RenameStep& step : renamer.Trace(name)) {
    steps.push_back({DescribeTransform(model.transforms[step.transform]), std::move(step.pattern),
                     std::move(step.before), std::move(step.after)});
  }
  return steps;
}

// The name that transformers has for a tensor: an expert's linear is a part of a stacked parameter.
std::string InMemoryName(const std::string& name, ExpertLocator* locator) {
  WeightUnit unit;
  unit.key = name;
  unit.module = SplitLeaf(name).module;
  return locator->Locate(unit).key;
}

Json StepsJson(const std::vector<NameStep>& steps) {
  Json list = Json::array();
  for (const NameStep& step : steps) {
    list.push_back(
        {{"transform", step.transform}, {"pattern", step.pattern}, {"before", step.before}, {"after", step.after}});
  }
  return list;
}

}  // namespace

Result<std::vector<ExplainedName>> ExplainNames(const std::string& checkpoint, const std::vector<std::string>& names,
                                                const MappingOptions& options, const Storage& storage) {
  auto model = ModelOf(storage, checkpoint, options);
  if (!model) return model.errors();
  std::vector<std::string> stored;
  if (auto checkpoint_names = OpenReference(storage, checkpoint))
    stored = MakeReferenceView(std::move(*checkpoint_names)).keys;
  std::sort(stored.begin(), stored.end(), DotNaturalLess);
  auto save = MakeRenamer(model->resolved, Renamer::Direction::kSave, stored);
  if (!save) return save.errors();
  auto load = MakeRenamer(model->resolved, Renamer::Direction::kLoad, stored);
  if (!load) return load.errors();
  ExpertLocator locator(*save);
  std::vector<ExplainedName> explained;
  for (const std::string& name : names) {
    std::string parameter = InMemoryName(name, &locator);
    std::vector<NameStep> saved = Trace(model->resolved, *save, parameter);
    if (parameter == name) parameter.clear();
    explained.push_back({name, std::move(parameter), std::move(saved), Trace(model->resolved, *load, name)});
  }
  return explained;
}

std::string RulesJson(const RulesReport& rules, const std::vector<ExplainedName>& names,
                      const RuleComparison* comparison) {
  auto json = ParseJson(rules.json, "", ErrorKind::kInvalidMapping);
  if (!json) return rules.json;
  for (const ExplainedName& name : names) {
    (*json)["names"].push_back({{"name", name.name},
                                {"parameter", name.parameter},
                                {"saved", StepsJson(name.saved)},
                                {"loaded", StepsJson(name.loaded)}});
  }
  if (comparison != nullptr) {
    Json differences = Json::array();
    for (const auto& difference : comparison->differences) {
      differences.push_back({{"in_memory", difference.in_memory},
                             {"by_reference", difference.by_reference},
                             {"by_rule", difference.by_rule}});
    }
    (*json)["reference"] = {{"already_hub", comparison->already_hub},
                            {"differences", std::move(differences)},
                            {"unused_transforms", comparison->unused}};
  }
  return DumpJson(*json);
}

namespace {

std::string StepsText(std::string_view title, const std::vector<NameStep>& steps) {
  if (steps.empty()) return fmt::format("  {}: no transform fires\n", title);
  std::string out;
  for (const NameStep& step : steps) {
    out += fmt::format("  {}: {}\n    by {}\n    whose \"{}\" matches {}\n", title, Printable(step.after),
                       Printable(step.transform), Printable(step.pattern), Printable(step.before));
  }
  return out;
}

std::string MappingText(const RulesReport& rules) {
  if (!rules.unmapped.empty()) {
    return fmt::format("{}\nno mapping: {}\n", Printable(rules.architecture), rules.unmapped);
  }
  std::string out = fmt::format("{}\nmapping of {}: {}\n", Printable(rules.architecture), Printable(rules.mapping),
                                Printable(rules.mapping_reason));
  for (const std::string& note : rules.notes) out += Printable(note) + "\n";
  for (const SubModelReport& sub : rules.submodels) {
    out += fmt::format("  {:<40} {} ({})\n", sub.path.empty() ? "." : Printable(sub.path), Printable(sub.class_name),
                       Printable(sub.model_type));
  }
  for (const std::string& transform : rules.transforms) out += Printable(transform) + "\n";
  return out;
}

std::string ComparisonText(const RuleComparison& comparison) {
  std::string out;
  if (comparison.already_hub) out += "the checkpoint has the reference's names already\n";
  for (const std::string& transform : comparison.unused)
    out += fmt::format("not used by the reference: {}\n", Printable(transform));
  for (const auto& difference : comparison.differences) {
    out += fmt::format("{}\n  reference: {}\n  rules:     {}\n", Printable(difference.in_memory),
                       Printable(difference.by_reference), Printable(difference.by_rule));
  }
  return out +
         fmt::format("{} names differ between the reference and the rules alone\n", comparison.differences.size());
}

}  // namespace

std::string RulesText(const RulesReport& rules, const std::vector<ExplainedName>& names,
                      const RuleComparison* comparison) {
  // Asked about names, one need not read the whole mapping first.
  std::string out = names.empty() ? MappingText(rules) : std::string();
  for (const ExplainedName& name : names) {
    out += Printable(name.name) + "\n";
    if (!name.parameter.empty()) out += fmt::format("  a part of {} in memory\n", Printable(name.parameter));
    out += StepsText("saved as", name.saved) + StepsText("loaded as", name.loaded);
  }
  if (comparison != nullptr) out += ComparisonText(*comparison);
  return out;
}

}  // namespace quantport
