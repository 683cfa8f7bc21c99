#include "exec/in_place.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "base/memory.h"
#include "base/text.h"
#include "exec/output_bytes.h"
#include "exec/sources.h"
#include "io/extents.h"
#include "io/folder_lock.h"
#include "io/local_storage.h"
#include "journal/journal.h"
#include "journal/replay.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

// Bytes that change places are written three times (old and new to the journal, then in place), those that are appended
// twice, and those of a copy once.
constexpr uint64_t kWritesPerRewritten = 3;
constexpr uint64_t kWritesPerAppended = 2;

const fs::path kNew = fs::path(kStagingName) / "new";
const fs::path kOld = fs::path(kStagingName) / "old";

struct NameOfFile {
  bool exists = false;
  bool linked = false;  // a symbolic link, or one of several names
};

NameOfFile Examine(const fs::path& path) {
  struct stat info = {};
  if (::lstat(path.c_str(), &info) != 0) return {};
  return {true, S_ISLNK(info.st_mode) || info.st_nlink > 1};
}

class Chooser {
 public:
  Chooser(const InPlaceInput& input, const OutputFolder& folder)
      : input_(input), folder_(folder), can_insert_(folder.CanInsertRange(input.block_bytes)) {}

  Result<std::vector<FileChange>> Choose() {
    std::set<std::string_view> outputs;
    for (const PlannedFile& file : input_.plan->files) {
      outputs.insert(file.name);
      changes_.push_back(ChangeOf(file));
    }
    for (const std::string& shard : input_.shards) {
      if (!outputs.contains(shard)) changes_.push_back({shard, ChangeMethod::kRemoved, {}});
    }
    for (const auto& [name, text] : input_.texts) changes_.push_back({name, ChangeMethod::kConfigWrite, {}});
    CheckNames();
    if (!errors_.empty()) return std::move(errors_);
    return std::move(changes_);
  }

 private:
  FileChange ChangeOf(const PlannedFile& file) {
    FileChange change{file.name, ChangeMethod::kCopied, file.obstacle};
    if (!file.stays) {
      if (change.reason.empty()) change.reason = "it is new here";
      return change;
    }
    if (file.stays->same_header && file.stays->rewritten.empty()) {
      change.method = ChangeMethod::kUntouched;
    } else if (input_.may_clone && CanCloneData(file)) {
      change.method = ChangeMethod::kCloned;
    } else if (Examine(folder_.path() / file.name).linked) {
      change.reason = "it is a link, or has other names that keep what they have";
    } else if (RewrittenBytes(*file.stays) * kWritesPerRewritten > file.bytes) {
      change.reason = "more than a third of its bytes change places";
    } else if (BytesToWrite(file) > file.bytes) {
      change.reason = "that writes less than appending to it";
    } else if (file.header.size() == file.stays->source_data_start) {
      change.method = ChangeMethod::kHeader;
    } else if (!can_insert_) {
      change.reason = "the file system can't insert blocks";
    } else if (!HasPlaces(file)) {
      change.reason = "the file system does not tell where its blocks are, or they are shared";
    } else {
      change.method = ChangeMethod::kInserted;
    }
    return change;
  }

  bool CanCloneData(const PlannedFile& file) const {
    auto source = LocalStorage().OpenFile(input_.plan->sources[file.stays->source].address);
    if (!source) return false;
    const auto can = folder_.CanClone(**source);
    return can && *can;
  }

  // Without the places of its blocks an interrupted insertion could not be finished.
  bool HasPlaces(const PlannedFile& file) const {
    auto extents = folder_.OwnExtents(file.name);
    return extents && !extents->empty() && extents->front().logical == 0 && AreDisjoint(*extents);
  }

  static uint64_t RewrittenBytes(const StayingData& stays) {
    uint64_t bytes = 0;
    for (const ByteRange& range : stays.rewritten) bytes += range.end - range.begin;
    return bytes;
  }

  static uint64_t BytesToWrite(const PlannedFile& file) {
    const uint64_t appended = file.bytes - file.header.size() - file.stays->kept;
    return RewrittenBytes(*file.stays) * kWritesPerRewritten + appended * kWritesPerAppended;
  }

  void CheckNew(const FileChange& change, const std::string& path) {
    if (change.method != ChangeMethod::kCopied || !Examine(path).exists) return;
    if (std::find(input_.shards.begin(), input_.shards.end(), change.name) != input_.shards.end()) return;
    errors_.push_back({ErrorKind::kOutputExists,
                       "a new file is to have this name, and one is there that is no shard of the checkpoint",
                       path,
                       {},
                       "move it away first"});
  }

  void CheckNames() {
    for (const FileChange& change : changes_) {
      if (change.method == ChangeMethod::kUntouched) continue;
      const std::string path = (folder_.path() / change.name).string();
      CheckNew(change, path);
      if (Printable(change.name) != change.name) {
        errors_.push_back({ErrorKind::kIo, "its name holds bytes that are no text", path, {}, "rename it first"});
      }
      if (!input_.detach_links && Examine(path).linked) {
        errors_.push_back({ErrorKind::kLinkedFile,
                           "a symbolic link, or a file with several names (as in a hub cache)",
                           path,
                           {},
                           "write to another folder with -o, or pass --force to put a file of its own in its place"});
      }
    }
  }

  const InPlaceInput& input_;
  const OutputFolder& folder_;
  const bool can_insert_;
  std::vector<FileChange> changes_;
  Errors errors_;
};

class Stager {
 public:
  Stager(const InPlaceInput& input, const std::vector<FileChange>& changes, OutputFolder* folder,
         const ExecOptions& options)
      : input_(input), changes_(changes), folder_(folder), options_(options), planned_sources_(input.plan->sources) {}

  Result<ExecReport> Run() {
    if (auto status = CheckWritable(); !status) return status.errors();
    try {
      auto status = MakeFolders();
      if (status) status = StageAndPublish();
      if (status) return std::move(report_);
      (void)folder_->RemoveFolder(kStagingName);
      return status.errors();
    } catch (...) {  // of a callback
      (void)folder_->RemoveFolder(kStagingName);
      throw;
    }
  }

 private:
  static bool IsChangedWhereItLies(const FileChange& change) {
    return change.method == ChangeMethod::kHeader || change.method == ChangeMethod::kInserted;
  }

  // One that can't be opened could not be taken back either, once the journal is there.
  Status CheckWritable() {
    if (auto status = CheckSources(); !status) return status;
    Errors errors;
    for (size_t i = 0; i < changes_.size(); ++i) {
      if (!IsChangedWhereItLies(changes_[i])) continue;
      auto file = folder_->Open(changes_[i].name);
      auto status = file ? StampAgain(input_.plan->files[i].stays->source) : Status(std::move(file.errors()));
      if (status) status = folder_->Close(*file);
      if (!status) errors.insert(errors.end(), status.errors().begin(), status.errors().end());
    }
    if (!errors.empty()) return errors;
    return {};
  }

  // An overlay file system copies a file up when it is opened for writing, which gives it another ctime.
  Status StampAgain(uint32_t source) {
    PlanSource& planned = planned_sources_[source];
    if (!planned.stamp) return {};
    auto file = LocalStorage().OpenFile(planned.address);
    if (!file) return std::move(file.errors());
    auto stamp = (*file)->Stamp();
    if (!stamp) return std::move(stamp.errors());
    planned.stamp->changed_ns = stamp->changed_ns;
    return {};
  }

  Status MakeFolders() {
    // Left over by a process that was killed before it published a journal.
    if (auto status = folder_->RemoveFolder(kStagingName); !status) return status;
    for (const fs::path& name : {fs::path(kStagingName), kNew, kOld}) {
      // Files in them get the permissions of those they replace at the end only.
      if (auto made = folder_->MakeFolder(name, 0700); !made) return made.errors();
    }
    return {};
  }

  Status StageAndPublish() {
    if (auto status = StageFiles(); !status) return status;
    auto sources = Sources::Open(planned_sources_, LocalStorage());
    if (!sources) return sources.errors();
    sources_ = std::move(*sources);
    auto writer = JournalWriter::Create(folder_);
    if (!writer) return writer.errors();
    Journal journal;
    for (size_t i = 0; i < changes_.size(); ++i) {
      const FileChange& change = changes_[i];
      if (change.method == ChangeMethod::kUntouched) continue;
      if (IsChangedWhereItLies(change)) {
        auto shard = WriteShard(input_.plan->files[i], &*writer);
        if (!shard) return shard.errors();
        journal.shards.push_back(std::move(*shard));
      } else {
        journal.replacements.push_back(
            {change.name, Examine(folder_->path() / change.name).exists, change.method != ChangeMethod::kRemoved});
      }
    }
    if (auto status = options_.work.Continue(); !status) return status;
    // What the journal holds was read from these files, and is written over them.
    if (auto status = CheckSources(); !status) return status;
    return writer->Publish(journal, options_.work.cancel);
  }

  Status StageFiles() {
    std::vector<size_t> files;
    for (size_t i = 0; i < input_.plan->files.size(); ++i) {
      const ChangeMethod method = changes_[i].method;
      if (method == ChangeMethod::kCloned || method == ChangeMethod::kCopied) files.push_back(i);
    }
    ExecOptions options = options_;
    options.files = std::move(files);
    options.sources = planned_sources_;
    auto written = WriteFiles(*input_.plan, LocalStorage(), folder_, kNew, options);
    if (!written) return written.errors();
    report_ = std::move(*written);
    for (const auto& [name, text] : input_.texts) {
      if (auto status = WriteText(folder_, kNew / name, text); !status) return status;
    }
    return KeepPermissions();
  }

  Status KeepPermissions() {
    for (const FileChange& change : changes_) {
      const fs::path old = folder_->path() / change.name;
      if (!Examine(folder_->path() / kNew / change.name).exists || !Examine(old).exists) continue;
      auto staged = folder_->Open(kNew / change.name);
      if (!staged) return staged.errors();
      if (auto status = (*staged)->CopyPermissions(old); !status) return status;
    }
    return {};
  }

  Result<ShardChange> WriteShard(const PlannedFile& file, JournalWriter* writer) {
    const StayingData& stays = *file.stays;
    const ByteSource& source = sources_[stays.source];
    ShardChange change;
    change.name = file.name;
    change.inserted = file.header.size() - stays.source_data_start;
    change.old_size = stays.source_data_start + stays.kept;
    change.new_size = file.bytes;
    std::string old_header(stays.source_data_start, '\0');
    if (auto status = source.ReadAt(std::as_writable_bytes(std::span(old_header)), 0); !status) return status.errors();
    auto old_piece = writer->Add(std::as_bytes(std::span(old_header)));
    if (!old_piece) return old_piece.errors();
    auto new_piece = writer->Add(std::as_bytes(std::span(file.header)));
    if (!new_piece) return new_piece.errors();
    change.old_header = *old_piece;
    change.new_header = *new_piece;
    if (change.inserted != 0) {
      auto extents = folder_->OwnExtents(file.name);
      if (!extents) return extents.errors();
      change.extents = std::move(*extents);
    }
    if (auto status = WritePatches(file, writer, &change); !status) return status.errors();
    return change;
  }

  // What the plan was made from must be what the names stand for now, so the files are opened by their names again.
  Status CheckSources() {
    sources_ = {};
    auto sources = Sources::Open(planned_sources_, LocalStorage());
    return sources ? Status() : Status(std::move(sources.errors()));
  }

  Status WritePatches(const PlannedFile& file, JournalWriter* writer, ShardChange* change) {
    const StayingData& stays = *file.stays;
    const ByteSource& source = sources_[stays.source];
    std::vector<ByteRange> ranges = stays.rewritten;
    const uint64_t data_bytes = file.bytes - file.header.size();
    if (data_bytes > stays.kept) ranges.push_back({stays.kept, data_bytes});
    if (ranges.empty()) return {};
    const OutputBytes output(*input_.plan, file, sources_, nullptr);
    std::vector<std::byte> buffer;
    for (const ByteRange& range : ranges) {
      for (uint64_t at = range.begin; at < range.end; at += buffer.size()) {
        buffer.resize(std::min(kMaxPatchBytes, range.end - at));
        Patch patch;
        patch.offset = file.header.size() + at;
        if (auto status = output.Fill(patch.offset, buffer); !status) return status;
        auto new_bytes = writer->Add(buffer);
        if (!new_bytes) return new_bytes.errors();
        patch.new_bytes = *new_bytes;
        if (at < stays.kept) {
          if (auto status = source.ReadAt(buffer, stays.source_data_start + at); !status) return status;
          auto old_bytes = writer->Add(buffer);
          if (!old_bytes) return old_bytes.errors();
          patch.old_bytes = *old_bytes;
        }
        change->patches.push_back(patch);
      }
    }
    return {};
  }

  const InPlaceInput& input_;
  const std::vector<FileChange>& changes_;
  OutputFolder* const folder_;
  const ExecOptions& options_;
  std::vector<PlanSource> planned_sources_;
  Sources sources_;
  ExecReport report_;
};

}  // namespace

std::string_view ChangeMethodName(ChangeMethod method) {
  switch (method) {
    case ChangeMethod::kUntouched:
      return "untouched";
    case ChangeMethod::kHeader:
      return "header";
    case ChangeMethod::kInserted:
      return "inserted";
    case ChangeMethod::kCloned:
      return "cloned";
    case ChangeMethod::kCopied:
      return "copied";
    case ChangeMethod::kRemoved:
      return "removed";
    case ChangeMethod::kConfigWrite:
      return "config";
  }
  return "";
}

Result<std::vector<FileChange>> ChooseChanges(const InPlaceInput& input, const OutputFolder& folder) {
  return Chooser(input, folder).Choose();
}

Result<ExecReport> Stage(const InPlaceInput& input, const std::vector<FileChange>& changes, OutputFolder* folder,
                         const ExecOptions& options) {
  return Stager(input, changes, folder, options).Run();
}

namespace {

Errors TakeBack(OutputFolder* folder, Errors errors) {
  auto status = WithinMemory([&]() -> Status {
    auto journal = JournalReader::Open(folder->path());
    if (!journal) return journal.errors();
    if (auto undone = Undo(*journal, folder); !undone) return undone;
    return Retire(folder);
  });
  if (!status) {
    errors.insert(errors.end(), status.errors().begin(), status.errors().end());
    errors.push_back({ErrorKind::kUnfinishedChange,
                      "the change could not be taken back",
                      folder->path().string(),
                      {},
                      "mend the cause and run quantport recover " + folder->path().string()});
  }
  return errors;
}

}  // namespace

Status ApplyJournal(OutputFolder* folder, const std::atomic<bool>* cancel, const std::function<Status()>& check) {
  auto status = WithinMemory([&]() -> Status {
    auto journal = JournalReader::Open(folder->path());
    if (!journal) return journal.errors();
    if (auto done = Redo(*journal, folder, cancel); !done) return done;
    return check();
  });
  return status ? Retire(folder) : TakeBack(folder, std::move(status.errors()));
}

}  // namespace quantport
