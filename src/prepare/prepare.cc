#include "prepare/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "config/excluded.h"
#include "config/references.h"
#include "exec/copy.h"
#include "layout/recognize.h"
#include "load/configs.h"
#include "load/load.h"
#include "plan/carry.h"
#include "plan/conversion.h"
#include "plan/dropped.h"
#include "verify/scheme_check.h"

namespace quantport {

namespace {

constexpr size_t kExamples = 5;

// Errors that mean "this can't be reverted", as opposed to "something is wrong with the input or the machine".
bool IsUnsupported(const Errors& errors) {
  return std::all_of(errors.begin(), errors.end(), [](const Error& error) {
    return error.kind == ErrorKind::kQuantConversionUnsupported || error.kind == ErrorKind::kNameCollision ||
           error.kind == ErrorKind::kMissingCompanion;
  });
}

class Preparer {
 public:
  Preparer(const RevertOptions& options, Direction direction, const DataPlaces& places)
      : options_(options), direction_(direction), places_(places) {}

  Result<RuleComparison> CompareNames() {
    if (auto s = ReadExport(); !s) return s.errors();
    if (auto s = ReadReference(); !s) return s.errors();
    if (auto s = ResolveMapping(); !s) return s.errors();
    FindWhole();
    if (auto s = Convert(); !s) return s.errors();
    return Compare();
  }

  Result<Prepared> Prepare() {
    if (auto s = ReadExport(); !s) return s.errors();
    if (auto s = ReadReference(); !s) return s.errors();
    if (auto s = ResolveMapping(); !s) return s.errors();
    FindWhole();
    if (auto s = Convert(); !s) return s.errors();
    if (auto s = SortDropped(); !s) return s.errors();
    if (auto s = CheckStrict(); !s) return s.errors();
    if (auto s = LayOut(); !s) return s.errors();
    if (auto s = RewriteConfigs(); !s) return s.errors();
    Summarize();
    return std::move(prepared_);
  }

 private:
  Status ReadExport() {
    auto checkpoint = OpenCheckpoint(options_.input, {.repair_index = options_.repair_index});
    if (!checkpoint) return checkpoint.errors();
    prepared_.checkpoint = std::move(*checkpoint);
    input_tensors_ = prepared_.checkpoint.table.tensors.size();
    input_shards_ = prepared_.checkpoint.table.shards.size();
    prepared_.report.notes = prepared_.checkpoint.notes;
    auto configs = ReadConfigs(prepared_.checkpoint);
    if (!configs) return configs.errors();
    configs_ = std::move(*configs);
    return {};
  }

  Status ReadReference() {
    if (!options_.reference) return {};
    auto names = OpenReference(*options_.reference);
    if (!names) return names.errors();
    if (options_.carry_missing) reference_table_ = names->table;
    reference_ = MakeReferenceView(std::move(*names));
    return {};
  }

  Status ResolveMapping() {
    auto model = LoadModel(configs_.config_text, (options_.input / kConfigName).string(), options_.mapping);
    if (!model) return model.errors();
    model_ = std::move(*model);
    prepared_.report.architecture = model_.resolved.architecture;
    prepared_.report.mapping = model_.version;
    if (model_.resolved.remote_code) prepared_.report.warnings.push_back(*model_.resolved.remote_code);
    return {};
  }

  // A model that was saved alone goes by the names it has inside the reference's: the language model of a
  // vision-language model. A reference that says nothing of its class, or is of the same one, changes nothing.
  void FindWhole() {
    if (!options_.reference || model_.resolved.remote_code) return;
    auto whole = LoadReferenceModel(*options_.reference, options_.mapping, model_);
    if (!whole) return;
    place_ = FindSubModel(model_.resolved, *whole);
    if (!place_) return;
    prepared_.report.notes.push_back(fmt::format("{} is taken for {} of the reference's {}",
                                                 model_.resolved.architecture, place_->path, whole->architecture));
    whole_ = std::move(*whole);
  }

  Status Convert() {
    auto units = RecognizeUnits(prepared_.checkpoint.table, RecognizeOptionsOf(configs_, prepared_.checkpoint));
    if (!units) return Fallback(std::move(units.errors()));
    units_ = std::move(*units);
    if (Errors contradictions = CheckScheme(configs_, units_); !contradictions.empty()) return contradictions;
    const bool stacks = options_.experts == ExpertForm::kStacked;
    if (model_.resolved.remote_code || (model_.resolved.transforms.empty() && !stacks && !reference_)) {
      conversion_ = KeepNames(prepared_.checkpoint.table, units_);
      conversion_.already_hub = true;
      return {};
    }
    ConversionInput input{&prepared_.checkpoint.table, &units_, place_ ? &whole_ : &model_.resolved, model_.legacy,
                          reference_ ? &*reference_ : nullptr};
    input.place = place_;
    input.loading = direction_ == Direction::kApply;
    input.stack_experts = stacks;
    input.merge_max = options_.merge_scales == MergeScales::kMax;
    auto conversion = input.loading ? ApplyNames(input) : RevertNames(input);
    if (!conversion) return Fallback(std::move(conversion.errors()));
    conversion_ = std::move(*conversion);
    return {};
  }

  // What the export lacks, by kind, and brought over where that is asked for.
  Status SortDropped() {
    if (options_.carry_missing && !reference_table_) {
      return Error{ErrorKind::kReferenceMismatch,
                   "tensors can't be carried over from names alone",
                   options_.reference ? options_.reference->string() : "",
                   {},
                   "--carry-missing needs the folder of the hub checkpoint with its files as --reference"};
    }
    auto dropped = ClassifyDropped(conversion_.only_in_reference, model_.resolved);
    if (!dropped) return dropped.errors();
    std::vector<std::string> carried;
    for (const Dropped& tensor : *dropped) {
      const bool carry = options_.carry_missing && !kept_ && tensor.kind != DroppedKind::kTied;
      if (carry) carried.push_back(tensor.key);
      prepared_.report.dropped.push_back({tensor.key, std::string(DroppedKindName(tensor.kind)), carry});
    }
    if (carried.empty()) return {};
    auto result = CarryTensors(carried, *reference_table_, *options_.reference, prepared_.checkpoint.sharded,
                               &prepared_.checkpoint.table, &conversion_);
    if (!result) return result.errors();
    carried_modules_ = std::move(result->modules);
    quantized_modules_ = std::move(result->quantized);
    return {};
  }

  Status CheckStrict() const {
    if (!options_.strict) return {};
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

  Status LayOut() {
    const Checkpoint& checkpoint = prepared_.checkpoint;
    PlanOptions options{options_.max_shard_bytes, checkpoint.index ? &*checkpoint.index : nullptr, checkpoint.sharded,
                        places_.block_bytes, places_.keep_header_room};
    auto plan = MakePlan(conversion_, checkpoint.table, checkpoint.directory, options);
    if (!plan) return kept_ ? Status(plan.errors()) : FallbackAndLayOut(std::move(plan.errors()));
    prepared_.plan = std::move(*plan);
    // Scalars of weights that become one must be equal; a few bytes of data, read before anything is written.
    if (auto status = RunChecks(prepared_.plan); !status) return FallbackAndLayOut(std::move(status.errors()));
    return {};
  }

  Status FallbackAndLayOut(Errors errors) {
    if (auto status = Fallback(std::move(errors)); !status) return status;
    return LayOut();
  }

  // All or nothing: names and configs both stay as they are, where the caller asked for that.
  Status Fallback(Errors errors) {
    if (kept_ || options_.on_unsupported == OnUnsupported::kFail || !IsUnsupported(errors)) return errors;
    kept_ = true;
    prepared_.report.unsupported = std::move(errors);
    DropCarried();
    conversion_ = KeepNames(prepared_.checkpoint.table, units_);
    return {};
  }

  // What was carried over has hub names, which don't go with in-memory ones.
  void DropCarried() {
    TensorTable& table = prepared_.checkpoint.table;
    table.tensors.resize(input_tensors_);
    table.shards.resize(input_shards_);
    for (DroppedTensor& tensor : prepared_.report.dropped) tensor.carried = false;
    carried_modules_.clear();
    quantized_modules_.clear();
  }

  Status RewriteConfigs() {
    if (kept_) return {};
    const ReferenceRewriter rewriter(conversion_.modules, conversion_.rename_module);
    std::vector<std::string> modules;
    for (const auto& [module, renamed] : conversion_.modules)
      modules.insert(modules.end(), renamed.begin(), renamed.end());
    modules.insert(modules.end(), quantized_modules_.begin(), quantized_modules_.end());
    Errors errors;
    for (const auto& [name, text] : configs_.quantization_files) {
      const std::string file = (options_.input / name).string();
      Result<std::string> rewritten = text;
      if (!conversion_.already_hub) rewritten = RewriteReferences(text, file, rewriter);
      if (rewritten && !carried_modules_.empty()) rewritten = AddExcluded(*rewritten, file, carried_modules_, modules);
      if (!rewritten) {
        errors.insert(errors.end(), rewritten.errors().begin(), rewritten.errors().end());
      } else if (*rewritten != text) {
        prepared_.configs.emplace(name, std::move(*rewritten));
      }
    }
    if (!errors.empty()) return errors;
    return {};
  }

  RuleComparison Compare() {
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

  void Summarize() {
    RevertReport& report = prepared_.report;
    report.outcome = kept_                             ? RevertOutcome::kKeptNames
                     : conversion_.already_hub         ? RevertOutcome::kCopied
                     : direction_ == Direction::kApply ? RevertOutcome::kApplied
                                                       : RevertOutcome::kReverted;
    report.input_tensors = input_tensors_;
    report.output_tensors = conversion_.tensors.size();
    report.renamed = conversion_.renamed;
    report.cut = conversion_.cut;
    report.bytes = prepared_.plan.TotalBytes();
    report.files = prepared_.plan.files.size();
    report.ambiguous = conversion_.ambiguous;
    report.ambiguous_examples = conversion_.ambiguous_examples;
    report.rules_differ = conversion_.rules_differ.size();
    for (const RuleDifference& difference : conversion_.rules_differ) {
      if (report.rules_differ_examples.size() == kExamples) break;
      report.rules_differ_examples.push_back(
          fmt::format("{} (rules: {})", difference.by_reference, difference.by_rule));
    }
    report.only_in_reference = conversion_.only_in_reference;
    const auto carried = std::count_if(report.dropped.begin(), report.dropped.end(),
                                       [](const DroppedTensor& tensor) { return tensor.carried; });
    if (carried > 0)
      report.notes.push_back(fmt::format("{} weights were carried over from the reference as they are there", carried));
    if (!quantized_modules_.empty()) {
      report.warnings.push_back(
          fmt::format("{} of the weights carried over are quantized in the reference's own format, which the export's "
                      "configs do not describe: an inference engine may not read them",
                      quantized_modules_.size()));
    }
    if (conversion_.already_hub && !model_.resolved.remote_code) {
      report.notes.push_back(model_.resolved.transforms.empty()
                                 ? fmt::format("{} has the same names in memory and on the hub: a plain copy",
                                               model_.resolved.architecture)
                             : direction_ == Direction::kApply ? "every name is the same in memory: a plain copy"
                                                               : "the export has hub names already: a plain copy");
    }
    if (kept_)
      report.warnings.push_back(
          "the names could not be reverted: tensors and configs keep their in-memory names, which inference engines do "
          "not map");
  }

  const RevertOptions& options_;
  const Direction direction_;
  const DataPlaces places_;
  Prepared prepared_;
  ConfigFiles configs_;
  size_t input_tensors_ = 0;  // of the export alone; the table may grow by what is carried over
  size_t input_shards_ = 0;
  std::optional<ReferenceView> reference_;
  std::optional<TensorTable> reference_table_;  // where tensors are to be carried over
  std::vector<std::string> carried_modules_;    // not quantized
  std::vector<std::string> quantized_modules_;  // carried as the reference has them quantized
  ModelMapping model_;
  std::optional<SubModelPlace> place_;  // of the export's model in the reference's, where it is a part of that
  ResolvedModel whole_;
  std::vector<WeightUnit> units_;
  Conversion conversion_;
  bool kept_ = false;
};

}  // namespace

Result<Prepared> Prepare(const RevertOptions& options, Direction direction, const DataPlaces& places) {
  return Preparer(options, direction, places).Prepare();
}

Result<RuleComparison> CompareNames(const RevertOptions& options) {
  return Preparer(options, Direction::kRevert, {}).CompareNames();
}

}  // namespace quantport
