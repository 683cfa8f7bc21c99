#include "prepare/names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "config/excluded.h"
#include "config/references.h"
#include "layout/misfits.h"
#include "layout/recognize.h"
#include "load/load.h"
#include "mapping/published.h"
#include "plan/reference_check.h"
#include "verify/compare_claims.h"

namespace quantport {

namespace {

constexpr size_t kExamples = 5;

// Errors that mean "this can't be reverted", as opposed to "something is wrong with the input or the machine".
bool IsUnsupported(const Errors& errors) {
  return std::all_of(errors.begin(), errors.end(), [](const Error& error) {
    return error.kind == ErrorKind::kQuantConversionUnsupported || error.kind == ErrorKind::kNameCollision ||
           error.kind == ErrorKind::kMissingCompanion || error.kind == ErrorKind::kUndecidedNames;
  });
}

// Whether some companion goes by another name on the other side, though no transform says so.
bool AnySpelled(const std::vector<WeightUnit>& units, Direction direction) {
  const auto spelled = [&](const StoredPart& part) {
    return part.spelling != nullptr && part.spelling->in_memory == (direction == Direction::kRevert);
  };
  return std::any_of(units.begin(), units.end(), [&](const WeightUnit& unit) {
    return unit.IsBelowProjection() || std::any_of(unit.weight.parts.begin(), unit.weight.parts.end(), spelled);
  });
}

}  // namespace

std::string NameConversion::FileOf(std::string_view name) const {
  return sources_.folder.empty() ? std::string(name) : (std::filesystem::path(sources_.folder) / name).string();
}

Status NameConversion::ResolveMapping(const MappingOptions& options) {
  auto model = LoadModel(sources_.configs->config_text, FileOf(kConfigName), options);
  if (!model) return model.errors();
  model_ = std::move(*model);
  report_->architecture = model_.resolved.architecture;
  report_->mapping = model_.version;
  if (model_.resolved.unmapped) report_->warnings.push_back(*model_.resolved.unmapped);
  if (auto note = ClassNote(model_.resolved)) report_->notes.push_back(std::move(*note));
  return {};
}

Status NameConversion::FindWhole(const Storage& storage, const std::string& reference, const MappingOptions& options) {
  if (model_.resolved.unmapped) return {};
  auto loaded = LoadReferenceModel(storage, reference, options, model_);
  if (!loaded) return loaded.errors();
  std::optional<ResolvedModel>& whole = *loaded;
  if (!whole) return {};
  place_ = FindSubModel(model_.resolved, *whole);
  if (!place_) return {};
  report_->notes.push_back(fmt::format("{} is taken for {} of the reference's {}", model_.resolved.architecture,
                                       place_->path, whole->architecture));
  whole_ = std::move(*whole);
  return {};
}

Status NameConversion::Convert(Result<std::vector<WeightUnit>> units) {
  if (!units) return KeepNames(std::move(units.errors()));
  units_ = std::move(*units);
  auto claims = CompareClaims(*sources_.configs, units_, &budget_);
  if (!claims) return claims.errors();
  for (Warning& warning : WarningsOf(claims->differences)) report_->warnings.push_back(std::move(warning));
  NoteContradictions(claims->differences, &units_);
  for (Warning& warning : UnknownWeightWarnings(
           FindUnknownWeights(units_, sources_.configs->scheme.quantized || !choices_.configs_are_complete)))
    report_->warnings.push_back(std::move(warning));
  const bool stacks = choices_.experts == ExpertForm::kStacked;
  const bool spelled = AnySpelled(units_, choices_.direction);
  if (model_.resolved.unmapped || (model_.resolved.transforms.empty() && !stacks && !reference_ && !spelled)) {
    conversion_ = quantport::KeepNames(*sources_.table, units_);
    conversion_.already_hub = true;
    if (!reference_) return {};
    // Nothing says that names could be others than the reference's.
    Errors errors = CheckAgainstReference(*reference_, model_.resolved.tied_weights, &conversion_);
    return errors.empty() ? Status() : KeepNames(std::move(errors));
  }
  ConversionInput input{sources_.table, &units_, place_ ? &whole_ : &model_.resolved, model_.legacy,
                        reference_ ? &*reference_ : nullptr};
  input.place = place_;
  if (choices_.undecided != Undecided::kAccept) input.published = FindPublishedNames(input.model->architecture);
  input.loading = choices_.direction == Direction::kApply;
  input.stack_experts = stacks;
  input.merge_max = choices_.merge_scales == MergeScales::kMax;
  auto conversion = input.loading ? ApplyNames(input) : RevertNames(input);
  if (!conversion) return KeepNames(std::move(conversion.errors()));
  conversion_ = std::move(*conversion);
  report_->warnings.insert(report_->warnings.end(), conversion_.warnings.begin(), conversion_.warnings.end());
  if (input.published != nullptr && !reference_ && !conversion_.rules_differ.empty())
    report_->published = input.published->hub;
  return CheckDecided();
}

// Of a renaming that the whole model has, nobody can say which of its names it gave.
Status NameConversion::CheckDecided() {
  if (conversion_.ambiguous == 0) return {};
  const std::string text = fmt::format(
      "{} names are undecided: other hub names would load to the same tensors, because of {}; for example {}",
      conversion_.ambiguous, fmt::join(conversion_.ambiguous_transforms, " and "),
      conversion_.ambiguous_examples.front());
  constexpr std::string_view kRemedy =
      "pass --reference HUB, whose index is enough, or --by-rules to take the names that the mapping's rules give";
  switch (choices_.undecided) {
    case Undecided::kAccept:
      report_->warnings.push_back({"names-by-rules",
                                   "the names are those that the mapping's rules give, and the hub may have others",
                                   conversion_.ambiguous,
                                   {conversion_.ambiguous_examples.front()},
                                   {}});
      return {};
    case Undecided::kWarn:
      report_->warnings.push_back({"names-undecided", text, 0, {}, std::string(kRemedy)});
      return {};
    default:
      return KeepNames({{ErrorKind::kUndecidedNames, text, {}, {}, std::string(kRemedy)}});
  }
}

Status NameConversion::KeepNames(Errors errors) {
  if (kept_ || choices_.on_unsupported == OnUnsupported::kFail || !IsUnsupported(errors)) return errors;
  kept_ = true;
  report_->unsupported = std::move(errors);
  conversion_ = quantport::KeepNames(*sources_.table, units_);
  return {};
}

Result<std::vector<Dropped>> NameConversion::FindDropped() const {
  return ClassifyDropped(conversion_.only_in_reference, model_.resolved);
}

Status NameConversion::CheckStrict() const {
  if (!choices_.strict) return {};
  Errors errors;
  for (const std::string& name : conversion_.only_in_reference) {
    errors.push_back({ErrorKind::kReferenceMismatch,
                      "only the reference has this tensor",
                      {},
                      name,
                      "without --strict it is listed only"});
  }
  if (!errors.empty()) return errors;
  return {};
}

Result<std::map<std::string, std::string>> NameConversion::RewriteConfigs(const CarriedModules& carried) {
  std::map<std::string, std::string> configs;
  if (kept_) return configs;
  ReferenceRewriter rewriter(conversion_.modules, conversion_.rename_module);
  std::vector<std::string> modules;
  for (const auto& [module, renamed] : conversion_.modules)
    modules.insert(modules.end(), renamed.begin(), renamed.end());
  modules.insert(modules.end(), carried.quantized.begin(), carried.quantized.end());
  Errors errors;
  for (const auto& [name, text] : sources_.configs->quantization_files) {
    const std::string file = FileOf(name);
    Result<std::string> rewritten = text;
    if (!conversion_.already_hub) rewritten = RewriteReferences(text, file, &rewriter, &budget_);
    if (rewritten && !carried.plain.empty())
      rewritten = AddExcluded(*rewritten, file, carried.plain, modules, &budget_);
    if (!rewritten) {
      errors.insert(errors.end(), rewritten.errors().begin(), rewritten.errors().end());
    } else if (*rewritten != text) {
      configs.emplace(name, std::move(*rewritten));
    }
  }
  if (!errors.empty()) return errors;
  return configs;
}

RuleComparison NameConversion::Compare() {
  RuleComparison comparison;
  const ResolvedModel& model = place_ ? whole_ : model_.resolved;
  comparison.already_hub = conversion_.already_hub;
  for (RuleDifference& difference : conversion_.rules_differ) {
    comparison.differences.push_back(
        {std::move(difference.in_memory), std::move(difference.by_reference), std::move(difference.by_rule)});
  }
  for (uint32_t i = 0; i < model.transforms.size(); ++i) {
    const auto& used = conversion_.used_transforms;
    if (std::find(used.begin(), used.end(), i) == used.end())
      comparison.unused.push_back(DescribeTransform(model.transforms[i]));
  }
  return comparison;
}

void NameConversion::Summarize(const CarriedModules& carried) {
  RevertReport& report = *report_;
  report.outcome = kept_                                     ? RevertOutcome::kKeptNames
                   : conversion_.already_hub                 ? RevertOutcome::kCopied
                   : choices_.direction == Direction::kApply ? RevertOutcome::kApplied
                                                             : RevertOutcome::kReverted;
  report.output_tensors = conversion_.tensors.size();
  report.renamed = conversion_.renamed;
  report.cut = conversion_.cut;
  report.ambiguous = conversion_.ambiguous;
  report.ambiguous_examples = conversion_.ambiguous_examples;
  report.ambiguous_transforms = conversion_.ambiguous_transforms;
  report.rules_differ = conversion_.rules_differ.size();
  for (const RuleDifference& difference : conversion_.rules_differ) {
    if (report.rules_differ_examples.size() == kExamples) break;
    report.rules_differ_examples.push_back(fmt::format("{} (rules: {})", difference.by_reference, difference.by_rule));
  }
  report.only_in_reference = conversion_.only_in_reference;
  const auto brought = std::count_if(report.dropped.begin(), report.dropped.end(),
                                     [](const DroppedTensor& tensor) { return tensor.carried; });
  if (brought > 0)
    report.notes.push_back(fmt::format("{} weights were carried over from the reference as they are there", brought));
  if (!carried.quantized.empty()) {
    Warning warning{
        "carried-quantized",
        "weights carried over are quantized in the reference's own format, which the export's configs do not "
        "describe: an inference engine may not read them",
        0,
        {},
        {}};
    for (const std::string& module : carried.quantized) AddName(module, &warning);
    report.warnings.push_back(std::move(warning));
  }
  if (conversion_.already_hub && !model_.resolved.unmapped) {
    report.notes.push_back(
        model_.resolved.transforms.empty()
            ? fmt::format("{} has the same names in memory and on the hub: a plain copy", model_.resolved.architecture)
        : choices_.direction == Direction::kApply ? "every name is the same in memory: a plain copy"
                                                  : "the export has hub names already: a plain copy");
  }
  if (kept_) {
    report.warnings.push_back({"names-kept",
                               "the names could not be reverted: tensors and configs keep their in-memory names, which "
                               "inference engines do not map",
                               0,
                               {},
                               {}});
  }
}

}  // namespace quantport
