// The public interface: every function of include/quantport/ that can fail, with the folders and files of this machine.
// Memory that runs out anywhere below becomes an error here.
#include "quantport/quantport.h"

#include "base/memory.h"
#include "diff/diff.h"
#include "inspect/inspect.h"
#include "io/local_storage.h"
#include "io/output_folder.h"
#include "io/staging.h"
#include "pipeline.h"
#include "prepare/prepare.h"
#include "prepare/quantize.h"
#include "prepare/state_dict.h"
#include "quantport/quantize.h"
#include "quantport/state_dict.h"
#include "report/rules.h"
#include "verify/verify.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

// The folder that an output is to lie in.
std::unique_ptr<OutputFolder> Around(const fs::path& output) {
  return OpenOutputFolder(FinalPath(output).parent_path());
}

RevertOptions CommonOptions(const ApplyOptions& options) {
  RevertOptions common;
  common.input = options.input;
  common.output = options.output;
  common.mapping = options.mapping;
  common.merge_scales = options.merge_scales;
  common.repair_index = options.repair_index;
  common.follow_links = options.follow_links;
  common.all_files = options.all_files;
  common.max_shard_bytes = options.max_shard_bytes;
  common.reflink = options.reflink;
  common.threads = options.threads;
  common.progress = options.progress;
  common.cancel = options.cancel;
  return common;
}

}  // namespace

std::string_view Version() { return QUANTPORT_VERSION; }

Result<RevertReport> Revert(const RevertOptions& options) {
  return WithinMemory([&] {
    return options.in_place ? ConvertInPlace(options, OpenOutputFolder(options.input).get())
                            : Convert(options, Direction::kRevert, Around(options.output).get());
  });
}

Result<RevertReport> Apply(const ApplyOptions& options) {
  return WithinMemory([&] { return Convert(CommonOptions(options), Direction::kApply, Around(options.output).get()); });
}

Result<RepairReport> Repair(const RepairOptions& options) {
  return WithinMemory([&] {
    const auto folder = options.in_place ? OpenOutputFolder(options.input) : Around(options.output);
    return RepairFiles(options, folder.get());
  });
}

Result<RecoverReport> Recover(const fs::path& folder, bool undo) {
  return WithinMemory([&] { return FinishOrUndo(OpenOutputFolder(folder).get(), undo); });
}

Result<PlanReport> PlanRevert(const RevertOptions& options) {
  return WithinMemory([&] { return PlanConversion(options, *OpenOutputFolder(options.input)); });
}

Result<QuantizeReport> Quantize(const QuantizeOptions& options) {
  return WithinMemory([&] { return ConvertQuantized(options, Around(options.output).get()); });
}

Result<QuantizeReport> PlanQuantize(const QuantizeOptions& options) {
  return WithinMemory([&]() -> Result<QuantizeReport> {
    auto prepared = PrepareQuantize(options, LocalStorage(), true);
    if (!prepared) return prepared.errors();
    return std::move(prepared->report);
  });
}

Result<QuantizeReport> Dequantize(const DequantizeOptions& options) {
  return WithinMemory([&] { return ConvertDequantized(options, Around(options.output).get()); });
}

Result<RuleComparison> CompareRules(const fs::path& checkpoint, const fs::path& reference,
                                    const MappingOptions& mapping) {
  return WithinMemory([&] {
    RevertOptions options;
    options.input = checkpoint;
    options.reference = reference;
    options.mapping = mapping;
    return CompareNames(options, LocalStorage());
  });
}

Result<RulesReport> Rules(const fs::path& checkpoint, const MappingOptions& options) {
  return WithinMemory([&] { return Rules(checkpoint.string(), options, LocalStorage()); });
}

Result<std::vector<ExplainedName>> ExplainNames(const fs::path& checkpoint, const std::vector<std::string>& names,
                                                const MappingOptions& options) {
  return WithinMemory([&] { return ExplainNames(checkpoint.string(), names, options, LocalStorage()); });
}

Result<VerifyReport> Verify(const VerifyOptions& options) {
  return WithinMemory([&] { return Verify(options, LocalStorage()); });
}

Result<InspectReport> Inspect(const fs::path& checkpoint) {
  return WithinMemory([&] { return Inspect(LocalStorage(), checkpoint.string()); });
}

Result<DiffReport> Diff(const DiffOptions& options) {
  return WithinMemory([&] { return Diff(options, LocalStorage()); });
}

Result<StateDictPlan> PlanStateDict(std::vector<StateTensor> tensors, const StateDictOptions& options) {
  return WithinMemory([&] { return PlanStateDict(std::move(tensors), options, LocalStorage()); });
}

Result<std::vector<StateStepResult>> MergeStateScalars(const StateDictPlan& plan,
                                                       const std::vector<std::vector<std::string>>& scalars) {
  return WithinMemory([&] { return MergeScalars(plan, scalars); });
}

}  // namespace quantport
