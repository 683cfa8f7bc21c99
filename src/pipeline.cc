// The pipeline: headers -> mapping -> plan -> execution -> verification, a line a stage.
#include "pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <span>
#include <system_error>

#include "exec/copy.h"
#include "exec/in_place.h"
#include "exec/quantize.h"
#include "exec/sources.h"
#include "io/clone.h"
#include "io/folder_lock.h"
#include "io/local_storage.h"
#include "io/staging.h"
#include "journal/replay.h"
#include "plan/plan.h"
#include "prepare/prepare.h"
#include "prepare/quantize.h"
#include "prepare/repair.h"
#include "report/planned.h"
#include "report/quantize.h"
#include "verify/written.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

// Of nearly every file system and of direct I/O: data that is congruent modulo so many bytes can be cloned and read and
// written without passing through the page cache.
constexpr uint64_t kBlockBytes = 4096;

Status CopySidecar(const PlannedCopy& copy, const Storage& storage, OutputFolder* folder, const fs::path& below,
                   const std::atomic<bool>* cancel) {
  auto file = storage.OpenFile(copy.address);
  if (!file) return file.errors();
  const auto check = [&]() -> Status {
    auto stamp = (*file)->Stamp();
    if (!stamp) return stamp.errors();
    if (copy.stamp && *stamp != *copy.stamp) return ChangedError(**file);
    return {};
  };
  if (auto s = check(); !s) return s;
  if (auto s = CopyIn(folder, **file, below / copy.name, cancel); !s) return s;
  return check();
}

// The plan's files that hold no tensors.
Status WriteSidecars(const Plan& plan, const Storage& storage, OutputFolder* folder, const fs::path& below,
                     const std::atomic<bool>* cancel) {
  Errors errors;
  const auto write = [&](const std::string& name, const auto& content) {
    auto made = folder->MakeFolder((below / name).parent_path());
    auto status = made ? content() : Status(made.errors());
    if (!status) errors.insert(errors.end(), status.errors().begin(), status.errors().end());
  };
  for (const PlannedCopy& copy : plan.copies)
    write(copy.name, [&] { return CopySidecar(copy, storage, folder, below, cancel); });
  for (const auto& [name, text] : plan.texts)
    write(name, [&, &text = text, &name = name] { return WriteText(folder, below / name, text); });
  if (plan.index) {
    write(std::string(kIndexName), [&] { return WriteText(folder, below / kIndexName, SerializeIndex(*plan.index)); });
  }
  const auto stopped =
      std::find_if(errors.begin(), errors.end(), [](const Error& e) { return e.kind == ErrorKind::kCancelled; });
  if (stopped != errors.end()) return *stopped;
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
Status CheckReflink(Reflink reflink, const Plan& plan, const OutputFolder& folder) {
  if (reflink != Reflink::kAlways) return {};
  Errors errors;
  for (const PlanSource& source : plan.sources) {
    auto file = LocalStorage().OpenFile(source.address);
    if (!file) return file.errors();
    auto can = folder.CanClone(**file);
    if (!can) return can.errors();
    if (*can) continue;
    errors.push_back({ErrorKind::kIo,
                      fmt::format("its blocks can't be shared with files in {}", folder.path().string()),
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

// ---- quantize ----------------------------------------------------------------------------------------------------

Result<QuantizeReport> WriteComputed(PreparedQuantize prepared, const fs::path& output, OutputFolder* folder,
                                     const ExecOptions& exec, Reflink reflink) {
  auto staging = StagingDirectory::Create(folder, FinalPath(output).filename().string());
  if (!staging) return staging.errors();
  const Plan& plan = prepared.plan.files;
  if (auto s = CheckReflink(reflink, plan, *folder); !s) return s.errors();
  auto written = WriteQuantized(prepared.plan, LocalStorage(), folder, staging->name(), exec);
  if (!written) return written.errors();
  if (auto s = WriteSidecars(plan, LocalStorage(), folder, staging->name(), exec.work.cancel); !s) return s.errors();
  if (auto s = VerifyWritten(plan, staging->path()); !s) return s.errors();
  if (auto s = staging->Commit(exec.work.cancel); !s) return s.errors();
  prepared.report.cloned_bytes = written->copied.cloned_bytes;
  AddErrors(written->errors, written->casts, &prepared.report);
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
                                   OutputFolder* folder, const ExecOptions& options) {
  if (ChangesNothing(changes)) return ExecReport{};
  auto staged = Stage(input, changes, folder, options);
  if (!staged) return staged.errors();
  const auto verify = [&] { return VerifyWritten(*input.plan, folder->path(), true); };
  if (auto s = ApplyJournal(folder, options.work.cancel, verify); !s) return s.errors();
  return staged;
}

Result<RecoverReport> RecoverLeftovers(OutputFolder* folder) {
  std::error_code code;
  const bool staged = fs::exists(folder->path() / kStagingName, code);
  if (auto s = Retire(folder); !s) return s.errors();
  return RecoverReport{staged ? RecoverOutcome::kLeftovers : RecoverOutcome::kNothing, 0};
}

// A checkpoint that can't be opened is no end of a recovery. Its index may have been wrong before; but without it,
// other safetensors files in the folder may be taken for shards.
Status CheckRecovered(const fs::path& folder) {
  auto checkpoint = OpenCheckpoint(LocalStorage(), folder.string(), {.being_changed = true});
  if (!checkpoint)
    checkpoint = OpenCheckpoint(LocalStorage(), folder.string(), {.repair_index = true, .being_changed = true});
  if (!checkpoint) return checkpoint.errors();
  return {};
}

// What a prepared conversion writes beside its input.
Result<RevertReport> WritePrepared(const RevertOptions& options, OutputFolder* folder,
                                   const std::function<Result<Prepared>()>& prepare) {
  if (auto free = CheckTargetFree(options.output); !free) return free.errors();
  auto prepared = prepare();
  if (!prepared) return prepared.errors();
  auto staging = StagingDirectory::Create(folder, FinalPath(options.output).filename().string());
  if (!staging) return staging.errors();
  if (auto s = CheckReflink(options.reflink, prepared->plan, *folder); !s) return s.errors();
  auto written = WriteFiles(prepared->plan, LocalStorage(), folder, staging->name(), ExecOptionsOf(options));
  if (!written) return written.errors();
  if (auto s = WriteSidecars(prepared->plan, LocalStorage(), folder, staging->name(), options.cancel); !s)
    return s.errors();
  if (auto s = VerifyWritten(prepared->plan, staging->path()); !s) return s.errors();
  if (auto s = staging->Commit(options.cancel); !s) return s.errors();
  AddWritten(std::move(*written), &prepared->report);
  return std::move(prepared->report);
}

// The same on the input itself. `prepare` is given the size of the file system's blocks.
Result<RevertReport> ChangePrepared(const RevertOptions& options, OutputFolder* folder,
                                    const std::function<Result<Prepared>(uint64_t)>& prepare) {
  auto lock = FolderLock::Acquire(options.input);
  if (!lock) return lock.errors();
  if (auto s = CheckNoJournal(options.input); !s) return s.errors();
  auto block = BlockSize(lock->folder());
  if (!block) return block.errors();
  auto prepared = prepare(UsableBlock(*block));
  if (!prepared) return prepared.errors();
  const InPlaceInput input = InputOf(*prepared, options, UsableBlock(*block));
  auto changes = ChooseChanges(input, *folder);
  if (!changes) return changes.errors();
  auto done = CarryOutInPlace(input, *changes, folder, ExecOptionsOf(options));
  if (!done) return done.errors();
  AddWritten(std::move(*done), &prepared->report);
  prepared->report.changed_files = ChangeReports(*changes);
  return std::move(prepared->report);
}

RevertOptions CommonOptions(const RepairOptions& options) {
  RevertOptions common;
  common.input = options.input;
  common.output = options.output;
  common.in_place = options.in_place;
  common.detach_links = options.detach_links;
  common.reflink = options.reflink;
  common.threads = options.threads;
  common.progress = options.progress;
  common.cancel = options.cancel;
  return common;
}

}  // namespace

Result<RevertReport> Convert(const RevertOptions& options, Direction direction, OutputFolder* folder) {
  return WritePrepared(options, folder, [&] {
    return Prepare(options, direction, {kBlockBytes, false}, LocalStorage());
  });
}

Result<RevertReport> ConvertInPlace(const RevertOptions& options, OutputFolder* folder) {
  return ChangePrepared(options, folder, [&](uint64_t block) {
    return Prepare(options, Direction::kRevert, {block, true}, LocalStorage());
  });
}

Result<RepairReport> RepairFiles(const RepairOptions& options, OutputFolder* folder) {
  RepairReport repair;
  const auto prepare = [&](const DataPlaces& places) -> Result<Prepared> {
    auto prepared = PrepareRepair(options, places, LocalStorage());
    if (!prepared) return prepared.errors();
    repair.mended = std::move(prepared->mended);
    return std::move(prepared->prepared);
  };
  const RevertOptions common = CommonOptions(options);
  auto report = options.in_place ? ChangePrepared(common, folder,
                                                  [&](uint64_t block) {
                                                    return prepare({block, true});
                                                  })
                                 : WritePrepared(common, folder, [&] {
                                     return prepare({kBlockBytes, false});
                                   });
  if (!report) return report.errors();
  repair.rescaled = std::move(report->rescaled);
  repair.tensors = report->output_tensors;
  repair.bytes = report->bytes;
  repair.files = report->files;
  repair.cloned_bytes = report->cloned_bytes;
  repair.changed_files = std::move(report->changed_files);
  repair.notes = std::move(report->notes);
  return repair;
}

Result<RecoverReport> FinishOrUndo(OutputFolder* folder, bool undo) {
  auto lock = FolderLock::Acquire(folder->path());
  if (!lock) return lock.errors();
  if (CheckNoJournal(folder->path())) return RecoverLeftovers(folder);
  auto journal = JournalReader::Open(folder->path());
  if (!journal) return journal.errors();
  // A killed process may have given the journal its name and not synced that.
  if (auto s = folder->SyncFolder(""); !s) return s.errors();
  if (auto s = undo ? Undo(*journal, folder) : Redo(*journal, folder); !s) return s.errors();
  if (auto s = CheckRecovered(folder->path()); !s) return s.errors();
  if (auto s = Retire(folder); !s) return s.errors();
  return RecoverReport{undo ? RecoverOutcome::kUndone : RecoverOutcome::kFinished,
                       journal->journal().shards.size() + journal->journal().replacements.size()};
}

Result<PlanReport> PlanConversion(const RevertOptions& options, const OutputFolder& folder) {
  auto prepared = Prepare(options, Direction::kRevert, {kBlockBytes, options.in_place}, LocalStorage(), true);
  if (!prepared) return prepared.errors();
  if (options.in_place) {
    auto changes = ChooseChanges(InputOf(*prepared, options, kBlockBytes), folder);
    if (!changes) return changes.errors();
    prepared->report.changed_files = ChangeReports(*changes);
  }
  return PlanReport{std::move(prepared->report), PlannedTensors(prepared->plan), std::move(prepared->plan.texts)};
}

Result<QuantizeReport> ConvertQuantized(const QuantizeOptions& options, OutputFolder* folder) {
  if (auto free = CheckTargetFree(options.output); !free) return free.errors();
  auto prepared = PrepareQuantize(options, LocalStorage());
  if (!prepared) return prepared.errors();
  return WriteComputed(std::move(*prepared), options.output, folder,
                       {{options.threads, options.progress, options.cancel}, CloneModeOf(options.reflink)},
                       options.reflink);
}

Result<QuantizeReport> ConvertDequantized(const DequantizeOptions& options, OutputFolder* folder) {
  if (auto free = CheckTargetFree(options.output); !free) return free.errors();
  auto prepared = PrepareDequantize(options, LocalStorage());
  if (!prepared) return prepared.errors();
  return WriteComputed(std::move(*prepared), options.output, folder,
                       {{options.threads, options.progress, options.cancel}, CloneModeOf(options.reflink)},
                       options.reflink);
}

}  // namespace quantport
