#include "prepare/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "exec/copy.h"
#include "load/configs.h"
#include "load/find_reference.h"
#include "load/load.h"
#include "plan/carry.h"
#include "prepare/sidecars.h"

namespace quantport {

namespace {

NameChoices ChoicesOf(const RevertOptions& options, Direction direction, bool dry) {
  return {.direction = direction,
          .on_unsupported = options.on_unsupported,
          .experts = options.experts,
          .merge_scales = options.merge_scales,
          .strict = options.strict,
          .undecided = options.by_rules ? Undecided::kAccept
                       : dry            ? Undecided::kWarn
                                        : Undecided::kFail,
          .cancel = options.cancel};
}

class Preparer {
 public:
  Preparer(const RevertOptions& options, Direction direction, const DataPlaces& places, const Storage& storage,
           bool dry)
      : options_(options),
        places_(places),
        storage_(storage),
        names_(ChoicesOf(options, direction, dry), {&prepared_.checkpoint.table, &configs_, options.input.string()},
               &prepared_.report) {}

  Result<RuleComparison> CompareNames() {
    if (auto s = ReadExport(); !s) return s.errors();
    if (auto s = ReadReference(); !s) return s.errors();
    if (auto s = ConvertNames(); !s) return s.errors();
    return names_.Compare();
  }

  Result<Prepared> Prepare() {
    if (auto s = ReadExport(); !s) return s.errors();
    if (auto s = ReadReference(); !s) return s.errors();
    if (auto s = ConvertNames(); !s) return s.errors();
    if (auto s = SortDropped(); !s) return s.errors();
    if (auto s = names_.CheckStrict(); !s) return s.errors();
    if (auto s = LayOut(); !s) return s.errors();
    if (auto s = RewriteConfigs(); !s) return s.errors();
    Summarize();
    return std::move(prepared_);
  }

 private:
  Status ReadExport() {
    // In place nothing is copied.
    auto checkpoint = OpenCheckpoint(storage_, options_.input.string(),
                                     {.repair_index = options_.repair_index,
                                      .all_files = options_.all_files,
                                      .follow_links = options_.follow_links || options_.in_place});
    if (!checkpoint) return checkpoint.errors();
    prepared_.checkpoint = std::move(*checkpoint);
    input_tensors_ = prepared_.checkpoint.table.tensors.size();
    input_shards_ = prepared_.checkpoint.table.shards.size();
    prepared_.report.notes = prepared_.checkpoint.notes;
    prepared_.report.left_out = prepared_.checkpoint.left_out;
    auto configs = ReadConfigs(prepared_.checkpoint);
    if (!configs) return configs.errors();
    configs_ = std::move(*configs);
    return {};
  }

  Status ReadReference() {
    if (!options_.reference) return {};
    auto names = OpenReference(storage_, options_.reference->string());
    if (!names) return names.errors();
    if (options_.carry_missing) reference_table_ = names->table;
    names_.SetReference(MakeReferenceView(std::move(*names)));
    return {};
  }

  Status ConvertNames() {
    if (auto s = names_.ResolveMapping(options_.mapping); !s) return s;
    if (options_.reference) {
      if (auto s = names_.FindWhole(storage_, options_.reference->string(), options_.mapping); !s) return s;
    }
    return names_.Convert(RecognizeCheckpoint(prepared_.checkpoint, configs_));
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
    auto dropped = names_.FindDropped();
    if (!dropped) return dropped.errors();
    std::vector<std::string> carried;
    for (const Dropped& tensor : *dropped) {
      const bool carry = options_.carry_missing && !names_.kept() && tensor.kind != DroppedKind::kTied;
      if (carry) carried.push_back(tensor.key);
      prepared_.report.dropped.push_back({tensor.key, std::string(DroppedKindName(tensor.kind)), carry});
    }
    if (carried.empty()) return {};
    auto result = CarryTensors(carried, *reference_table_, *options_.reference, prepared_.checkpoint.sharded,
                               &prepared_.checkpoint.table, &names_.conversion());
    if (!result) return result.errors();
    carried_ = {std::move(result->modules), std::move(result->quantized)};
    return {};
  }

  Status LayOut() {
    const Checkpoint& checkpoint = prepared_.checkpoint;
    PlanOptions options{options_.max_shard_bytes, checkpoint.index ? &*checkpoint.index : nullptr, checkpoint.sharded,
                        places_.block_bytes, places_.keep_header_room};
    auto plan = MakePlan(names_.conversion(), checkpoint.table, checkpoint.folder->address(), options);
    if (!plan) return names_.kept() ? Status(plan.errors()) : FallbackAndLayOut(std::move(plan.errors()));
    prepared_.plan = std::move(*plan);
    // Scalars of weights that become one must be equal; a few bytes of data, read before anything is written.
    if (auto status = RunChecks(prepared_.plan, storage_); !status)
      return FallbackAndLayOut(std::move(status.errors()));
    return {};
  }

  Status FallbackAndLayOut(Errors errors) {
    DropCarried();
    if (auto status = names_.KeepNames(std::move(errors)); !status) return status;
    return LayOut();
  }

  // What was carried over has hub names, which don't go with in-memory ones.
  void DropCarried() {
    TensorTable& table = prepared_.checkpoint.table;
    table.tensors.resize(input_tensors_);
    table.shards.resize(input_shards_);
    for (DroppedTensor& tensor : prepared_.report.dropped) tensor.carried = false;
    carried_ = {};
  }

  Status RewriteConfigs() {
    auto configs = names_.RewriteConfigs(carried_);
    if (!configs) return configs.errors();
    prepared_.plan.texts = std::move(*configs);
    return PlanCopies(prepared_.checkpoint, &prepared_.plan);
  }

  void Summarize() {
    prepared_.report.input_tensors = input_tensors_;
    prepared_.report.bytes = prepared_.plan.TotalBytes();
    prepared_.report.files = prepared_.plan.files.size();
    names_.Summarize(carried_);
  }

  const RevertOptions& options_;
  const DataPlaces places_;
  const Storage& storage_;
  Prepared prepared_;
  ConfigFiles configs_;
  size_t input_tensors_ = 0;  // of the export alone; the table may grow by what is carried over
  size_t input_shards_ = 0;
  std::optional<TensorTable> reference_table_;  // where tensors are to be carried over
  CarriedModules carried_;
  NameConversion names_;
};

}  // namespace

Result<Prepared> Prepare(const RevertOptions& options, Direction direction, const DataPlaces& places,
                         const Storage& storage, bool dry) {
  const bool look =
      direction == Direction::kRevert && options.find_reference && !options.by_rules && !options.reference;
  std::optional<FoundReference> found;
  if (look) {
    auto finding = FindReference(storage, options.input.string());
    if (!finding) return finding.errors();
    found = std::move(*finding);
  }
  if (!found) return Preparer(options, direction, places, storage, dry).Prepare();
  RevertOptions guided = options;
  guided.reference = found->address;
  auto prepared = Preparer(guided, direction, places, storage, dry).Prepare();
  if (prepared) {
    auto& notes = prepared->report.notes;
    notes.insert(notes.begin(), found->note);
    return prepared;
  }
  const bool contradicts = std::all_of(prepared.errors().begin(), prepared.errors().end(),
                                       [](const Error& error) { return error.kind == ErrorKind::kReferenceMismatch; });
  if (!contradicts) return prepared;
  // Nobody asked for it, and a model card may name another model than the export is of.
  auto alone = Preparer(options, direction, places, storage, dry).Prepare();
  if (alone) {
    alone->report.warnings.push_back(
        {"reference-left-aside",
         fmt::format("{}, but contradicts the export: {}", found->note, prepared.errors().front().ToString()),
         0,
         {},
         {}});
  }
  return alone;
}

Result<RuleComparison> CompareNames(const RevertOptions& options, const Storage& storage) {
  return Preparer(options, Direction::kRevert, {}, storage, true).CompareNames();
}

}  // namespace quantport
