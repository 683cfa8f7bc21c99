#include "prepare/state_dict.h"

#include <algorithm>
#include <memory>
#include <unordered_set>
#include <utility>

#include "base/memory.h"
#include "config/references.h"
#include "exec/copy.h"
#include "exec/rescale.h"
#include "layout/recognize.h"
#include "load/configs.h"
#include "load/load.h"
#include "prepare/names.h"
#include "prepare/state_views.h"

namespace quantport {
namespace {

// A dict as the table of a checkpoint of one shard. Where its tensors begin means nothing.
TensorTable TableOf(std::vector<StateTensor> tensors) {
  TensorTable table;
  table.shards.emplace_back();
  table.tensors.reserve(tensors.size());
  for (StateTensor& tensor : tensors) {
    TensorInfo info{std::move(tensor.name), tensor.dtype, std::move(tensor.shape), 0, 0};
    info.end = TensorBytes(info.dtype, info.shape).value_or(0);
    table.tensors.push_back({std::move(info), 0});
  }
  return table;
}

// As the reader of headers does for files.
Status CheckTensors(const std::vector<StateTensor>& tensors) {
  Errors errors;
  std::unordered_set<std::string_view> names;
  names.reserve(tensors.size());
  for (const StateTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second)
      errors.push_back({ErrorKind::kInvalidHeader, "the name stands there twice", {}, tensor.name, {}});
    if (!TensorBytes(tensor.dtype, tensor.shape))
      errors.push_back({ErrorKind::kInvalidHeader, "its size is beyond any tensor's", {}, tensor.name, {}});
  }
  if (!errors.empty()) return errors;
  return {};
}

ReferenceView ViewOf(const StateReference& reference, bool shapes_known) {
  ReferenceNames names{reference.names, std::nullopt};
  if (!reference.tensors.empty()) {
    names.names.clear();
    for (const StateTensor& tensor : reference.tensors) names.names.push_back(tensor.name);
    if (shapes_known) names.table = TableOf(reference.tensors);
  }
  return MakeReferenceView(std::move(names));
}

NameChoices ChoicesOf(const StateDictOptions& options) {
  return {Direction::kRevert,
          options.on_unsupported,
          options.experts,
          options.merge_scales,
          options.strict,
          options.by_rules ? Undecided::kAccept : Undecided::kFail,
          false};
}

// Stays alive as long as a plan does: renaming modules and keeping names need what was found.
class Planner : public std::enable_shared_from_this<Planner> {
 public:
  Planner(std::vector<StateTensor> tensors, const StateDictOptions& options, const Storage& storage)
      : storage_(storage),
        table_(TableOf(std::move(tensors))),
        names_(ChoicesOf(options), {&table_, &configs_, options.folder}, &report_) {}

  Result<StateDictPlan> Plan(const StateDictOptions& options) {
    if (auto s = ReadConfigTexts(options); !s) return s.errors();
    if (auto s = ReadReference(options); !s) return s.errors();
    if (auto s = names_.ResolveMapping(options.mapping); !s) return s.errors();
    if (options.reference) {
      if (auto s = names_.FindWhole(storage_, options.reference->string(), options.mapping); !s) return s.errors();
    }
    RecognizeOptions recognize = RecognizeOptionsOf(configs_.scheme);
    recognize.read = options.read;
    if (auto s = names_.Convert(RecognizeUnits(table_, recognize)); !s) return s.errors();
    if (auto s = ListDropped(); !s) return s.errors();
    if (auto s = names_.CheckStrict(); !s) return s.errors();
    return Finish();
  }

 private:
  Status ReadConfigTexts(const StateDictOptions& options) {
    const auto path = [&](std::string_view name) {
      return options.folder.empty() ? std::string(name) : (std::filesystem::path(options.folder) / name).string();
    };
    if (auto s = AddConfig(kConfigName, path(kConfigName), options.config, &configs_); !s) return s;
    Errors errors;
    for (const auto& [name, text] : options.more) {
      auto added = AddConfig(name, path(name), text, &configs_);
      if (!added) errors.insert(errors.end(), added.errors().begin(), added.errors().end());
    }
    if (!errors.empty()) return errors;
    return {};
  }

  Status ReadReference(const StateDictOptions& options) {
    if (options.reference_tensors) {
      if (auto s = CheckTensors(options.reference_tensors->tensors); !s) return s;
      names_.SetReference(ViewOf(*options.reference_tensors, options.shapes_known));
    } else if (options.reference) {
      auto names = OpenReference(storage_, options.reference->string());
      if (!names) return names.errors();
      if (!options.shapes_known) names->table.reset();
      names_.SetReference(MakeReferenceView(std::move(*names)));
    }
    return {};
  }

  Status ListDropped() {
    auto dropped = names_.FindDropped();
    if (!dropped) return dropped.errors();
    for (const Dropped& tensor : *dropped)
      report_.dropped.push_back({tensor.key, std::string(DroppedKindName(tensor.kind)), false});
    return {};
  }

  Result<StateDictPlan> Finish() {
    StateDictPlan plan;
    AddViews(table_, &names_.conversion(), &plan);
    auto configs = names_.RewriteConfigs({});
    if (!configs) return configs.errors();
    plan.configs = std::move(*configs);
    report_.input_tensors = table_.tensors.size();
    names_.Summarize({});
    plan.report = report_;
    plan.rename_module = names_.conversion().rename_module;
    plan.rewrite_references = [self = shared_from_this()](const std::string& text, std::string_view file) {
      return WithinMemory([&] { return self->Rewrite(text, file); });
    };
    plan.keep_names = [self = shared_from_this()](Errors errors) {
      return WithinMemory([&] { return self->Keep(std::move(errors)); });
    };
    return plan;
  }

  Result<std::string> Rewrite(const std::string& text, std::string_view file) {
    const Conversion& conversion = names_.conversion();
    if (names_.kept() || conversion.already_hub) return text;
    // An export with mixed precision asks for thousands of names.
    if (!rewriter_) rewriter_.emplace(conversion.modules, conversion.rename_module);
    MatchBudget budget;
    return RewriteReferences(text, file, &*rewriter_, &budget);
  }

  Result<StateDictPlan> Keep(Errors errors) {
    if (auto s = names_.KeepNames(std::move(errors)); !s) return s.errors();
    return Finish();
  }

  const Storage& storage_;
  const TensorTable table_;
  ConfigFiles configs_;
  RevertReport report_;
  NameConversion names_;
  std::optional<ReferenceRewriter> rewriter_;
};

}  // namespace

Result<StateDictPlan> PlanStateDict(std::vector<StateTensor> tensors, const StateDictOptions& options,
                                    const Storage& storage) {
  if (auto s = CheckTensors(tensors); !s) return s.errors();
  return std::make_shared<Planner>(std::move(tensors), options, storage)->Plan(options);
}

std::vector<std::string> ValueNames(const std::vector<std::string>& names) { return ValueKeys(names); }

Errors FailedChecks(const StateDictPlan& plan, const std::vector<size_t>& failed) {
  Errors errors;
  for (const size_t i : failed) {
    const StateCheck& check = plan.checks.at(i);
    errors.push_back(UnequalScales(check.leaf, check.tensor_a, check.tensor_b));
  }
  return errors;
}

Result<std::vector<StateStepResult>> MergeScalars(const StateDictPlan& plan,
                                                  const std::vector<std::vector<std::string>>& scalars) {
  std::vector<CommonScale> scales;
  Errors errors;
  for (size_t m = 0; m < plan.merges.size(); ++m) {
    const StateMerge& merge = plan.merges[m];
    std::vector<std::vector<std::byte>> bytes;
    for (const std::string& scalar : scalars.at(m)) {
      const auto* begin = reinterpret_cast<const std::byte*>(scalar.data());
      bytes.emplace_back(begin, begin + scalar.size());
    }
    auto scale = FindCommonScale(merge.leaf, merge.dtype, merge.reciprocal, bytes, merge.names);
    if (scale) {
      scales.push_back(std::move(*scale));
    } else {
      errors.insert(errors.end(), scale.errors().begin(), scale.errors().end());
    }
  }
  if (!errors.empty()) return errors;
  std::vector<StateStepResult> results;
  for (const StateStep& step : plan.steps) {
    const CommonScale& scale = scales[step.merge];
    const bool merged = step.kind == StateStep::Kind::kMerged;
    StateStepResult result{merged, step.merge, static_cast<uint32_t>(scale.winner), {}, {}, {}};
    if (!merged) {
      const double factor = scale.scales[step.part] / scale.common;
      RescaledCodes codes = RescaleCodes(static_cast<ScaleStep::Kind>(step.kind), step.dtype, factor);
      result.code = codes.code;
      result.value = codes.value;
      result.squared = codes.squared;
    }
    results.push_back(result);
  }
  return results;
}

void ReportRescaled(const std::vector<StateStepResult>& steps, const std::vector<std::array<uint64_t, 256>>& counts,
                    StateDictPlan* plan) {
  RescaleTally tally;
  for (const StateJoined& joined : plan->joined) {
    for (const StateBox& box : joined.array.boxes) {
      if (box.step == 0 || steps[box.step - 1].merged) continue;
      const StateStepResult& step = steps[box.step - 1];
      tally.Add(plan->names[joined.result], plan->merges[step.merge].leaf, {step.code, step.squared, step.value},
                counts[box.step - 1]);
    }
  }
  plan->report.rescaled.clear();
  for (RescaleError& error : tally.Take()) {
    plan->report.rescaled.push_back({std::move(error.tensor), std::move(error.scalar), error.elements, error.changed,
                                     error.rms_relative, error.largest_relative});
  }
}

}  // namespace quantport
