#include "exec/in_place.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <system_error>

#include "base/memory.h"
#include "base/text.h"
#include "exec/output_bytes.h"
#include "io/clone.h"
#include "io/extents.h"
#include "io/folder_lock.h"
#include "io/staging.h"
#include "journal/journal.h"
#include "journal/replay.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

// Bytes that change places are written three times (old and new to the journal, then in place), those that are appended
// twice, and those of a copy once.
constexpr uint64_t kWritesPerRewritten = 3;
constexpr uint64_t kWritesPerAppended = 2;

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
  explicit Chooser(const InPlaceInput& input)
      : input_(input), can_insert_(CanInsertRange(input.folder, input.block_bytes)) {}

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
    } else if (Examine(input_.folder / file.name).linked) {
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
    const auto can = CanClone(input_.plan->sources[file.stays->source], input_.folder);
    return can && *can;
  }

  // Without the places of its blocks an interrupted insertion could not be finished.
  bool HasPlaces(const PlannedFile& file) const {
    auto source = File::OpenForReading(input_.plan->sources[file.stays->source]);
    if (!source) return false;
    auto own = HasPlacesOfItsOwn(*source);
    auto extents = FileExtents(*source);
    return own && *own && extents && !extents->empty() && extents->front().logical == 0 && AreDisjoint(*extents);
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
      const std::string path = (input_.folder / change.name).string();
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
  const bool can_insert_;
  std::vector<FileChange> changes_;
  Errors errors_;
};

class Stager {
 public:
  Stager(const InPlaceInput& input, const std::vector<FileChange>& changes, const ExecOptions& options)
      : input_(input), changes_(changes), options_(options), staging_(input.folder / kStagingName) {}

  Result<ExecReport> Run() {
    if (auto status = CheckWritable(); !status) return status.errors();
    try {
      auto status = MakeFolders();
      if (status) status = StageAndPublish();
      if (status) return std::move(report_);
      RemoveStaging();
      return status.errors();
    } catch (...) {  // of a callback
      RemoveStaging();
      throw;
    }
  }

 private:
  static bool IsChangedWhereItLies(const FileChange& change) {
    return change.method == ChangeMethod::kHeader || change.method == ChangeMethod::kInserted;
  }

  // One that can't be opened could not be taken back either, once the journal is there.
  Status CheckWritable() const {
    Errors errors;
    for (const FileChange& change : changes_) {
      if (!IsChangedWhereItLies(change)) continue;
      auto file = File::OpenForChange(input_.folder / change.name);
      if (!file) errors.insert(errors.end(), file.errors().begin(), file.errors().end());
    }
    if (!errors.empty()) return errors;
    return {};
  }

  void RemoveStaging() const {
    std::error_code ignored;
    fs::remove_all(staging_, ignored);
  }

  Status MakeFolders() {
    // Left over by a process that was killed before it published a journal.
    RemoveStaging();
    for (const fs::path& path : {staging_, staging_ / "new", staging_ / "old"}) {
      // Files in them get the permissions of those they replace at the end only.
      if (::mkdir(path.c_str(), 0700) != 0) return SystemError("create the folder", path);
    }
    return {};
  }

  Status StageAndPublish() {
    if (auto status = StageFiles(); !status) return status;
    auto writer = JournalWriter::Create(input_.folder);
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
            {change.name, Examine(input_.folder / change.name).exists, change.method != ChangeMethod::kRemoved});
      }
    }
    if (auto status = options_.work.Continue(); !status) return status;
    // What the journal holds was read from these files, and is written over them.
    if (auto status = CheckSources(); !status) return status;
    return writer->Publish(journal);
  }

  Status StageFiles() {
    std::vector<size_t> files;
    for (size_t i = 0; i < input_.plan->files.size(); ++i) {
      const ChangeMethod method = changes_[i].method;
      if (method == ChangeMethod::kCloned || method == ChangeMethod::kCopied) files.push_back(i);
    }
    ExecOptions options = options_;
    options.files = std::move(files);
    auto written = WriteFiles(*input_.plan, staging_ / "new", options);
    if (!written) return written.errors();
    report_ = std::move(*written);
    for (const auto& [name, text] : input_.texts) {
      if (auto status = WriteTextFile(staging_ / "new" / name, text); !status) return status;
    }
    if (auto status = KeepPermissions(); !status) return status;
    return SyncDirectory(staging_ / "new");
  }

  Status KeepPermissions() const {
    for (const FileChange& change : changes_) {
      const fs::path staged = staging_ / "new" / change.name;
      if (!Examine(staged).exists || !Examine(input_.folder / change.name).exists) continue;
      if (auto status = CopyPermissions(input_.folder / change.name, staged); !status) return status;
    }
    return {};
  }

  Result<ShardChange> WriteShard(const PlannedFile& file, JournalWriter* writer) {
    const StayingData& stays = *file.stays;
    auto source = File::OpenForReading(input_.plan->sources[stays.source]);
    if (!source) return source.errors();
    ShardChange change;
    change.name = file.name;
    change.inserted = file.header.size() - stays.source_data_start;
    change.old_size = stays.source_data_start + stays.kept;
    change.new_size = file.bytes;
    std::string old_header(stays.source_data_start, '\0');
    if (auto status = source->ReadAt(std::as_writable_bytes(std::span(old_header)), 0); !status) return status.errors();
    auto old_piece = writer->Add(std::as_bytes(std::span(old_header)));
    if (!old_piece) return old_piece.errors();
    auto new_piece = writer->Add(std::as_bytes(std::span(file.header)));
    if (!new_piece) return new_piece.errors();
    change.old_header = *old_piece;
    change.new_header = *new_piece;
    if (change.inserted != 0) {
      auto extents = FileExtents(*source);
      if (!extents) return extents.errors();
      change.extents = std::move(*extents);
    }
    if (auto status = WritePatches(file, *source, writer, &change); !status) return status.errors();
    return change;
  }

  Status CheckSources() const {
    Errors errors;
    for (size_t i = 0; i < input_.plan->sources.size(); ++i) {
      auto file = File::OpenForReading(input_.plan->sources[i]);
      auto status = file ? CheckUnchanged(*file, static_cast<uint32_t>(i)) : Status(file.errors());
      if (!status) errors.insert(errors.end(), status.errors().begin(), status.errors().end());
    }
    if (!errors.empty()) return errors;
    return {};
  }

  Status CheckUnchanged(const File& file, uint32_t number) const {
    auto stamp = file.Stamp();
    if (!stamp) return stamp.errors();
    const auto& planned = input_.plan->stamps.at(number);
    if (!planned || *planned == *stamp) return {};
    return Error{ErrorKind::kIo,
                 "the file changed while the conversion was prepared",
                 file.path().string(),
                 {},
                 "run again when nothing else writes to it"};
  }

  Status WritePatches(const PlannedFile& file, const File& source, JournalWriter* writer, ShardChange* change) {
    const StayingData& stays = *file.stays;
    std::vector<ByteRange> ranges = stays.rewritten;
    const uint64_t data_bytes = file.bytes - file.header.size();
    if (data_bytes > stays.kept) ranges.push_back({stays.kept, data_bytes});
    if (ranges.empty()) return {};
    if (auto status = OpenSources(); !status) return status;
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

  Status OpenSources() {
    if (!sources_.empty()) return {};
    for (const auto& path : input_.plan->sources) {
      auto file = File::OpenForReading(path);
      if (!file) return file.errors();
      sources_.push_back(std::move(*file));
    }
    return {};
  }

  const InPlaceInput& input_;
  const std::vector<FileChange>& changes_;
  const ExecOptions& options_;
  const fs::path staging_;
  std::vector<File> sources_;
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

Result<std::vector<FileChange>> ChooseChanges(const InPlaceInput& input) { return Chooser(input).Choose(); }

Result<ExecReport> Stage(const InPlaceInput& input, const std::vector<FileChange>& changes,
                         const ExecOptions& options) {
  return Stager(input, changes, options).Run();
}

Status ApplyJournal(const fs::path& folder, const std::atomic<bool>* cancel) {
  auto journal = JournalReader::Open(folder);
  auto status = journal ? WithinMemory([&] { return Redo(*journal, folder, cancel); }) : Status(journal.errors());
  if (status) return status;
  return TakeBack(folder, std::move(status.errors()));
}

Errors TakeBack(const fs::path& folder, Errors errors) {
  auto journal = JournalReader::Open(folder);
  auto status = journal ? Undo(*journal, folder) : Status(journal.errors());
  if (status) status = Retire(folder);
  if (!status) {
    errors.insert(errors.end(), status.errors().begin(), status.errors().end());
    errors.push_back({ErrorKind::kUnfinishedChange,
                      "the change could not be taken back",
                      folder.string(),
                      {},
                      "mend the cause and run quantport recover " + folder.string()});
  }
  return errors;
}

}  // namespace quantport
