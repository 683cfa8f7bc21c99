// The pipeline: headers -> mapping -> plan -> execution -> verification, a line a stage.
#include "quantport/quantport.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/memory.h"
#include "exec/copy.h"
#include "exec/in_place.h"
#include "exec/quantize.h"
#include "io/clone.h"
#include "io/file.h"
#include "io/folder_lock.h"
#include "io/local_storage.h"
#include "io/staging.h"
#include "journal/replay.h"
#include "plan/plan.h"
#include "prepare/prepare.h"
#include "prepare/quantize.h"
#include "report/planned.h"
#include "report/quantize.h"
#include "verify/written.h"

namespace quantport {

namespace fs = std::filesystem;

std::string_view Version() { return QUANTPORT_VERSION; }

namespace {

// Of nearly every file system and of direct I/O: data that is congruent modulo so many bytes can be cloned and read and
// written without passing through the page cache.
constexpr uint64_t kBlockBytes = 4096;

Status CopySidecar(const PlannedCopy& copy, const Storage& storage, const fs::path& directory) {
  auto file = storage.OpenFile(copy.address);
  if (!file) return file.errors();
  return CopyFile(**file, directory / copy.name);
}

// The plan's files that hold no tensors.
Status WriteSidecars(const Plan& plan, const Storage& storage, const fs::path& directory) {
  Errors errors;
  const auto write = [&](const std::string& name, const auto& content) {
    const fs::path folder = (directory / name).parent_path();
    std::error_code code;
    fs::create_directories(folder, code);
    auto status = code ? Status(Error{ErrorKind::kIo,
                                      fmt::format("can't create the folder: {}", code.message()),
                                      folder.string(),
                                      {},
                                      {}})
                       : content();
    if (!status) errors.insert(errors.end(), status.errors().begin(), status.errors().end());
  };
  for (const PlannedCopy& copy : plan.copies) write(copy.name, [&] { return CopySidecar(copy, storage, directory); });
  for (const auto& [name, text] : plan.texts)
    write(name, [&, &text = text, &name = name] { return WriteTextFile(directory / name, text); });
  if (plan.index) write(std::string(kIndexName), [&] { return WriteTextFile(directory / kIndexName, SerializeIndex(*plan.index)); });
  if (!errors.empty()) return errors;
  return {};
}

CloneMode CloneModeOf(Reflink reflink) {
  switch (reflink) {
    case Reflink::kAuto:
      return CloneMode::kAuto;
    case Reflink::kAlways:
      return CloneMode::kAlways;
    case Reflink::kNever:
      break;
  }
  return CloneMode::kNever;
}

ExecOptions ExecOptionsOf(const RevertOptions& options) {
  return {{options.threads, options.progress, options.cancel}, CloneModeOf(options.reflink)};
}

// Asked for in any case, sharing must not fail after hours of copying.
Status CheckReflink(Reflink reflink, const Plan& plan, const fs::path& directory) {
  if (reflink != Reflink::kAlways) return {};
  Errors errors;
  for (const PlanSource& source : plan.sources) {
    auto file = LocalStorage().OpenFile(source.address);
    if (!file) return file.errors();
    auto can = CanClone(**file, directory);
    if (!can) return can.errors();
    if (*can) continue;
    errors.push_back({ErrorKind::kIo,
                      fmt::format("its blocks can't be shared with files in {}", directory.parent_path().string()),
                      source.address,
                      {},
                      "reflink needs one xfs or btrfs file system for both; --reflink auto copies otherwise"});
  }
  if (!errors.empty()) return errors;
  return {};
}

void AddWritten(ExecReport written, RevertReport* report) {
  report->cloned_bytes = written.cloned_bytes;
  for (RescaleError& error : written.rescaled) {
    report->rescaled.push_back({std::move(error.tensor), std::move(error.scalar), error.elements, error.changed,
                                error.rms_relative, error.largest_relative});
  }
}

Result<RevertReport> Convert(const RevertOptions& options, Direction direction) {
  if (auto free = CheckTargetFree(options.output); !free) return free.errors();
  auto prepared = Prepare(options, direction, {kBlockBytes, false}, LocalStorage());
  if (!prepared) return prepared.errors();
  auto staging = StagingDirectory::Create(options.output);
  if (!staging) return staging.errors();
  if (auto s = CheckReflink(options.reflink, prepared->plan, staging->path()); !s) return s.errors();
  auto written = WriteFiles(prepared->plan, LocalStorage(), staging->path(), ExecOptionsOf(options));
  if (!written) return written.errors();
  if (auto s = WriteSidecars(prepared->plan, LocalStorage(), staging->path()); !s)
    return s.errors();
  if (auto s = VerifyWritten(prepared->plan, staging->path()); !s) return s.errors();
  if (auto s = staging->Commit(); !s) return s.errors();
  AddWritten(std::move(*written), &prepared->report);
  return std::move(prepared->report);
}

// ---- quantize ----------------------------------------------------------------------------------------------------

Result<QuantizeReport> WriteComputed(PreparedQuantize prepared, const fs::path& output, const ExecOptions& exec,
                                     Reflink reflink) {
  auto staging = StagingDirectory::Create(output);
  if (!staging) return staging.errors();
  const Plan& plan = prepared.plan.files;
  if (auto s = CheckReflink(reflink, plan, staging->path()); !s) return s.errors();
  auto written = WriteQuantized(prepared.plan, LocalStorage(), staging->path(), exec);
  if (!written) return written.errors();
  if (auto s = WriteSidecars(plan, LocalStorage(), staging->path()); !s) return s.errors();
  if (auto s = VerifyWritten(plan, staging->path()); !s) return s.errors();
  if (auto s = staging->Commit(); !s) return s.errors();
  prepared.report.cloned_bytes = written->copied.cloned_bytes;
  AddErrors(written->errors, &prepared.report);
  return std::move(prepared.report);
}

// ---- in place ----------------------------------------------------------------------------------------------------

// Blocks of other sizes than these can't be inserted in, and would only make headers long.
uint64_t UsableBlock(uint64_t bytes) { return bytes >= 512 && bytes <= (64 << 10) ? bytes : kBlockBytes; }

// Files without tensors whose text changes: configs, and the index where it says anything else than it did.
std::map<std::string, std::string> ChangedTexts(const Prepared& prepared) {
  std::map<std::string, std::string> texts = prepared.plan.texts;
  const auto& old = prepared.checkpoint.index;
  if (!prepared.plan.index || (old && prepared.report.outcome == RevertOutcome::kKeptNames)) return texts;
  std::string text = SerializeIndex(*prepared.plan.index);
  if (!old || SerializeIndex(*old) != text) texts.emplace(kIndexName, std::move(text));
  return texts;
}

InPlaceInput InputOf(const Prepared& prepared, const RevertOptions& options, uint64_t block_bytes) {
  InPlaceInput input;
  input.plan = &prepared.plan;
  input.folder = options.input;
  for (const Shard& shard : prepared.checkpoint.table.shards) {
    if (!fs::path(shard.name).is_absolute()) input.shards.push_back(shard.name);
  }
  input.texts = ChangedTexts(prepared);
  input.block_bytes = block_bytes;
  input.may_clone = options.reflink != Reflink::kNever;
  input.detach_links = options.detach_links;
  return input;
}

bool ChangesNothing(const std::vector<FileChange>& changes) {
  return std::all_of(changes.begin(), changes.end(),
                     [](const FileChange& change) { return change.method == ChangeMethod::kUntouched; });
}

std::vector<FileChangeReport> ChangeReports(const std::vector<FileChange>& changes) {
  std::vector<FileChangeReport> reports;
  for (const FileChange& change : changes)
    reports.push_back({change.name, std::string(ChangeMethodName(change.method)), change.reason});
  return reports;
}

Result<ExecReport> CarryOutInPlace(const InPlaceInput& input, const std::vector<FileChange>& changes,
                                   const ExecOptions& options) {
  if (ChangesNothing(changes)) return ExecReport{};
  auto staged = Stage(input, changes, options);
  if (!staged) return staged.errors();
  if (auto s = ApplyJournal(input.folder, options.work.cancel); !s) return s.errors();
  if (auto s = VerifyWritten(*input.plan, input.folder, true); !s) return TakeBack(input.folder, s.errors());
  if (auto s = Retire(input.folder); !s) return s.errors();
  return staged;
}

Result<RevertReport> ConvertInPlace(const RevertOptions& options) {
  auto lock = FolderLock::Acquire(options.input);
  if (!lock) return lock.errors();
  if (auto s = CheckNoJournal(options.input); !s) return s.errors();
  auto block = BlockSize(lock->folder());
  if (!block) return block.errors();
  auto prepared = Prepare(options, Direction::kRevert, {UsableBlock(*block), true}, LocalStorage());
  if (!prepared) return prepared.errors();
  const InPlaceInput input = InputOf(*prepared, options, UsableBlock(*block));
  auto changes = ChooseChanges(input);
  if (!changes) return changes.errors();
  auto done = CarryOutInPlace(input, *changes, ExecOptionsOf(options));
  if (!done) return done.errors();
  AddWritten(std::move(*done), &prepared->report);
  prepared->report.changed_files = ChangeReports(*changes);
  return std::move(prepared->report);
}

Result<RecoverReport> RecoverLeftovers(const fs::path& folder) {
  std::error_code code;
  const bool staged = fs::exists(folder / kStagingName, code);
  if (auto s = Retire(folder); !s) return s.errors();
  return RecoverReport{staged ? RecoverOutcome::kLeftovers : RecoverOutcome::kNothing, 0};
}

// A checkpoint that can't be opened is no end of a recovery. Its index may have been wrong before; but without it,
// other safetensors files in the folder may be taken for shards.
Status CheckRecovered(const fs::path& folder) {
  auto checkpoint = OpenCheckpoint(LocalStorage(), folder.string(), {.being_changed = true});
  if (!checkpoint) checkpoint = OpenCheckpoint(LocalStorage(), folder.string(), {.repair_index = true, .being_changed = true});
  if (!checkpoint) return checkpoint.errors();
  return {};
}

RevertOptions CommonOptions(const ApplyOptions& options) {
  RevertOptions common;
  common.input = options.input;
  common.output = options.output;
  common.mapping = options.mapping;
  common.merge_scales = options.merge_scales;
  common.repair_index = options.repair_index;
  common.max_shard_bytes = options.max_shard_bytes;
  common.reflink = options.reflink;
  common.threads = options.threads;
  common.progress = options.progress;
  common.cancel = options.cancel;
  return common;
}

Result<RecoverReport> FinishOrUndo(const fs::path& folder, bool undo) {
  auto lock = FolderLock::Acquire(folder);
  if (!lock) return lock.errors();
  if (CheckNoJournal(folder)) return RecoverLeftovers(folder);
  auto journal = JournalReader::Open(folder);
  if (!journal) return journal.errors();
  if (auto s = undo ? Undo(*journal, folder) : Redo(*journal, folder); !s) return s.errors();
  if (auto s = CheckRecovered(folder); !s) return s.errors();
  if (auto s = Retire(folder); !s) return s.errors();
  return RecoverReport{undo ? RecoverOutcome::kUndone : RecoverOutcome::kFinished,
                       journal->journal().shards.size() + journal->journal().replacements.size()};
}

Result<PlanReport> PlanConversion(const RevertOptions& options) {
  auto prepared = Prepare(options, Direction::kRevert, {kBlockBytes, options.in_place}, LocalStorage());
  if (!prepared) return prepared.errors();
  if (options.in_place) {
    auto changes = ChooseChanges(InputOf(*prepared, options, kBlockBytes));
    if (!changes) return changes.errors();
    prepared->report.changed_files = ChangeReports(*changes);
  }
  return PlanReport{std::move(prepared->report), PlannedTensors(prepared->plan), std::move(prepared->plan.texts)};
}

Result<QuantizeReport> WriteQuantizedCheckpoint(const QuantizeOptions& options) {
  if (auto free = CheckTargetFree(options.output); !free) return free.errors();
  auto prepared = PrepareQuantize(options, LocalStorage());
  if (!prepared) return prepared.errors();
  return WriteComputed(std::move(*prepared), options.output,
                       {{options.threads, options.progress, options.cancel}, CloneModeOf(options.reflink)},
                       options.reflink);
}

Result<QuantizeReport> WriteDequantizedCheckpoint(const DequantizeOptions& options) {
  if (auto free = CheckTargetFree(options.output); !free) return free.errors();
  auto prepared = PrepareDequantize(options, LocalStorage());
  if (!prepared) return prepared.errors();
  return WriteComputed(std::move(*prepared), options.output,
                       {{options.threads, options.progress, options.cancel}, CloneModeOf(options.reflink)},
                       options.reflink);
}

}  // namespace

// ---- the public interface: whatever comes up there is a value -------------------------------------------------------

Result<RevertReport> Revert(const RevertOptions& options) {
  return WithinMemory(
      [&] { return options.in_place ? ConvertInPlace(options) : Convert(options, Direction::kRevert); });
}

Result<RevertReport> Apply(const ApplyOptions& options) {
  return WithinMemory([&] { return Convert(CommonOptions(options), Direction::kApply); });
}

Result<RecoverReport> Recover(const fs::path& folder, bool undo) {
  return WithinMemory([&] { return FinishOrUndo(folder, undo); });
}

Result<PlanReport> PlanRevert(const RevertOptions& options) {
  return WithinMemory([&] { return PlanConversion(options); });
}

Result<QuantizeReport> Quantize(const QuantizeOptions& options) {
  return WithinMemory([&] { return WriteQuantizedCheckpoint(options); });
}

Result<QuantizeReport> PlanQuantize(const QuantizeOptions& options) {
  return WithinMemory([&]() -> Result<QuantizeReport> {
    auto prepared = PrepareQuantize(options, LocalStorage());
    if (!prepared) return prepared.errors();
    return std::move(prepared->report);
  });
}

Result<QuantizeReport> Dequantize(const DequantizeOptions& options) {
  return WithinMemory([&] { return WriteDequantizedCheckpoint(options); });
}

Result<RuleComparison> CompareRules(const std::filesystem::path& checkpoint, const std::filesystem::path& reference,
                                    const MappingOptions& mapping) {
  RevertOptions options;
  options.input = checkpoint;
  options.reference = reference;
  options.mapping = mapping;
  return WithinMemory([&] { return CompareNames(options, LocalStorage()); });
}

}  // namespace quantport
