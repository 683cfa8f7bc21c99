#include "prepare/repair.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "layout/misfits.h"
#include "layout/shared_scales.h"
#include "load/configs.h"
#include "plan/conversion.h"
#include "prepare/mend_configs.h"
#include "prepare/sidecars.h"
#include "verify/fused_scales.h"

namespace quantport {
namespace {

bool IsOfIndex(const Errors& errors) {
  return std::all_of(errors.begin(), errors.end(),
                     [](const Error& error) { return error.kind == ErrorKind::kInvalidIndex; });
}

class Repairer {
 public:
  Repairer(const RepairOptions& options, const DataPlaces& places, const Storage& storage)
      : options_(options), places_(places), storage_(storage) {}

  Result<PreparedRepair> Prepare() {
    if (auto s = ReadCheckpoint(); !s) return s.errors();
    if (auto s = MergeScales(); !s) return s.errors();
    if (auto s = LayOut(); !s) return s.errors();
    return std::move(repair_);
  }

 private:
  // An index that contradicts the shards is dropped, since headers say where tensors are; shards that are missing are
  // missing.
  Status ReadCheckpoint() {
    OpenOptions open;
    open.all_files = true;
    open.follow_links = options_.follow_links || options_.in_place;  // in place nothing is copied
    auto checkpoint = OpenCheckpoint(storage_, options_.input.string(), open);
    if (!checkpoint && IsOfIndex(checkpoint.errors())) {
      open.repair_index = open.whole = true;
      checkpoint = OpenCheckpoint(storage_, options_.input.string(), open);
    }
    if (!checkpoint) return checkpoint.errors();
    repair_.prepared.checkpoint = std::move(*checkpoint);
    if (Checkpoint& opened = repair_.prepared.checkpoint; opened.sharded && !opened.index) {
      repair_.mended.push_back(
          fmt::format("{} was {}, and is made from the headers", kIndexName, open.repair_index ? "wrong" : "missing"));
    }
    return ReadModules();
  }

  Status ReadModules() {
    const Checkpoint& checkpoint = repair_.prepared.checkpoint;
    auto configs = ReadConfigs(checkpoint);
    if (!configs) return configs.errors();
    auto units = RecognizeCheckpoint(checkpoint, *configs);
    if (!units) return units.errors();
    units_ = std::move(*units);
    MatchBudget budget{.cancel = options_.cancel};
    auto mended = MendConfigs(checkpoint, *configs, units_, &budget);
    if (!mended) return mended.errors();
    texts_ = std::move(mended->texts);
    repair_.mended.insert(repair_.mended.end(), mended->mended.begin(), mended->mended.end());
    Errors errors = UnknownWeightErrors(FindUnknownWeights(units_, configs->scheme.quantized),
                                        ErrorKind::kQuantConversionUnsupported);
    for (Error& error : SiblingScaleProblems(units_)) errors.push_back(std::move(error));
    return errors.empty() ? Status() : Status(std::move(errors));
  }

  // Every tensor as it is, but for those under a global scale that differs among linears that engines fuse.
  Status MergeScales() {
    auto unequal = FindUnequalScales(repair_.prepared.checkpoint, units_);
    if (!unequal) return unequal.errors();
    conversion_ = KeepNames(repair_.prepared.checkpoint.table, units_);
    Errors errors;
    for (const UnequalScale& scale : *unequal) {
      if (scale.use != ScaleUse::kGlobal) continue;
      std::vector<LogicalWeight*> weights;
      for (const size_t unit : scale.units) weights.push_back(&units_[unit].weight);
      if (auto s = MergeApart(weights, scale.leaf, &conversion_.shared); !s) {
        for (Error& error : s.errors()) {
          error.tensor = scale.parent;
          errors.push_back(std::move(error));
        }
        continue;
      }
      for (const size_t unit : scale.units) TakeParts(units_[unit]);
    }
    std::vector<std::string>& notes = repair_.prepared.report.notes;
    notes = repair_.prepared.checkpoint.notes;
    for (std::string& note : NotesOf(*unequal)) notes.push_back(std::move(note));
    return errors.empty() ? Status() : Status(std::move(errors));
  }

  // A unit's tensors are one for each part, and the conversion's those of the table.
  void TakeParts(const WeightUnit& unit) {
    for (size_t p = 0; p < unit.tensors.size(); ++p)
      conversion_.tensors[unit.tensors[p]].array = unit.weight.parts[p].array;
  }

  Status LayOut() {
    const Checkpoint& checkpoint = repair_.prepared.checkpoint;
    PlanOptions options;
    options.index = checkpoint.index ? &*checkpoint.index : nullptr;
    options.sharded = checkpoint.sharded;
    options.block_bytes = places_.block_bytes;
    options.keep_header_room = places_.keep_header_room;
    auto plan = MakePlan(conversion_, checkpoint.table, checkpoint.folder->address(), options);
    if (!plan) return plan.errors();
    Prepared& prepared = repair_.prepared;
    prepared.plan = std::move(*plan);
    prepared.plan.texts = std::move(texts_);
    prepared.report.outcome = RevertOutcome::kCopied;
    prepared.report.input_tensors = prepared.report.output_tensors = checkpoint.table.tensors.size();
    prepared.report.bytes = prepared.plan.TotalBytes();
    prepared.report.files = prepared.plan.files.size();
    return PlanCopies(checkpoint, &prepared.plan);
  }

  const RepairOptions& options_;
  const DataPlaces places_;
  const Storage& storage_;
  std::vector<WeightUnit> units_;
  std::map<std::string, std::string> texts_;
  Conversion conversion_;
  PreparedRepair repair_;
};

}  // namespace

Result<PreparedRepair> PrepareRepair(const RepairOptions& options, const DataPlaces& places, const Storage& storage) {
  return Repairer(options, places, storage).Prepare();
}

}  // namespace quantport
