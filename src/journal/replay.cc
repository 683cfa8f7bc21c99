#include "journal/replay.h"

#include <sys/stat.h>

#include "io/folder_lock.h"
#include "journal/shift.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kLengthField = 8;
const fs::path kNew = fs::path(kStagingName) / "new";
const fs::path kOld = fs::path(kStagingName) / "old";

Status WriteAndSync(OutputFile* file, std::string_view bytes, uint64_t offset) {
  if (auto status = file->WriteAt(std::as_bytes(std::span(bytes)), offset); !status) return status;
  return file->Sync();
}

// No reader takes a file for a checkpoint whose header has no bytes. Where that is so already, the field may be in a
// hole that a full disk leaves one: taking back must not need space.
Status MakeUnreadable(OutputFile* file) {
  constexpr std::string_view kNone("\0\0\0\0\0\0\0\0", kLengthField);
  std::string now(kLengthField, '\0');
  if (auto status = file->ReadAt(std::as_writable_bytes(std::span(now)), 0); !status) return status;
  return now == kNone ? file->Sync() : WriteAndSync(file, kNone, 0);
}

// The length last: when it is on the disk, everything else is. It is when the file is closed.
Status WriteHeader(OutputFile* file, std::string_view header) {
  if (auto status = WriteAndSync(file, header.substr(kLengthField), kLengthField); !status) return status;
  return file->WriteAt(std::as_bytes(std::span(header.substr(0, kLengthField))), 0);
}

class Shard {
 public:
  Shard(const JournalReader& journal, const ShardChange& change, OutputFile* file)
      : journal_(journal), change_(change), file_(file) {}

  Status Redo() {
    auto header = journal_.Read(change_.new_header);
    if (!header) return header.errors();
    // A file that is neither the old one nor on the way is left alone.
    if (auto shift = FindShift(*file_, change_, journal_); !shift) return shift.errors();
    if (auto status = MakeUnreadable(file_); !status) return status;
    if (auto status = FinishShift(file_, change_, journal_); !status) return status;
    for (const Patch& patch : change_.patches) {
      if (auto status = Put(patch.new_bytes, patch.offset); !status) return status;
    }
    return WriteHeader(file_, *header);
  }

  Status Undo() {
    auto header = journal_.Read(change_.old_header);
    if (!header) return header.errors();
    auto shift = FindShift(*file_, change_, journal_);
    if (!shift) return shift.errors();
    if (auto status = MakeUnreadable(file_); !status) return status;
    // Patches are written when all blocks have moved, and not before.
    if (shift->begun && shift->gap == 0) {
      for (const Patch& patch : change_.patches) {
        if (patch.old_bytes.bytes == 0) continue;
        if (auto status = Put(patch.old_bytes, patch.offset); !status) return status;
      }
      if (auto status = file_->Sync(); !status) return status;
    }
    if (auto status = UndoShift(file_, change_, journal_); !status) return status;
    return WriteHeader(file_, *header);
  }

 private:
  Status Put(const Piece& piece, uint64_t offset) {
    auto bytes = journal_.Read(piece);
    if (!bytes) return bytes.errors();
    return file_->WriteAt(std::as_bytes(std::span(*bytes)), offset);
  }

  const JournalReader& journal_;
  const ShardChange& change_;
  OutputFile* const file_;
};

Status ForEachShard(const JournalReader& journal, OutputFolder* folder, Status (Shard::*step)(),
                    const std::atomic<bool>* cancel) {
  for (const ShardChange& change : journal.journal().shards) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed))
      return Error{ErrorKind::kCancelled, "stopped on request", {}, {}, {}};
    auto file = folder->Open(change.name);
    if (!file) return file.errors();
    Shard shard(journal, change, *file);
    if (auto status = (shard.*step)(); !status) return status;
    if (auto status = folder->Close(*file); !status) return status;
  }
  return {};
}

bool Exists(const fs::path& path) {
  struct stat info = {};
  return ::lstat(path.c_str(), &info) == 0 && (S_ISREG(info.st_mode) || S_ISLNK(info.st_mode));
}

// Where the files of one replacement are: at any instant at most the name, the new and the old one exist, and which do
// says how far the change has come.
class Places {
 public:
  Places(OutputFolder* folder, const Replacement& replacement)
      : folder_(folder),
        replacement_(replacement),
        name_(replacement.name),
        new_file_(kNew / replacement.name),
        old_file_(kOld / replacement.name) {}

  // A link is detached here: the name is taken from it, and the file behind it stays as it is.
  Status PutOldAside() {
    if (replacement_.has_new && !Has(new_file_)) return {};
    return Has(name_) && !Has(old_file_) ? folder_->Rename(name_, old_file_) : Status();
  }
  Status PutNewInPlace() {
    return replacement_.has_new && Has(new_file_) ? folder_->Rename(new_file_, name_) : Status();
  }

  Status PutNewAside() {
    return replacement_.has_new && !Has(new_file_) && Has(name_) ? folder_->Rename(name_, new_file_) : Status();
  }
  Status PutOldInPlace() { return Has(old_file_) ? folder_->Rename(old_file_, name_) : Status(); }

 private:
  bool Has(const fs::path& name) const { return Exists(folder_->path() / name); }

  OutputFolder* const folder_;
  const Replacement& replacement_;
  const fs::path name_;
  const fs::path new_file_;
  const fs::path old_file_;
};

// A folder that came from elsewhere may hold links, through which renaming would write outside it.
Status CheckStaging(const fs::path& folder) {
  const fs::path staging = folder / kStagingName;
  for (const fs::path& path : {staging, staging / "new", staging / "old"}) {
    struct stat info = {};
    if (::lstat(path.c_str(), &info) != 0) return SystemError("use what was staged", path);
    if (S_ISDIR(info.st_mode)) continue;
    return Error{ErrorKind::kUnfinishedChange,
                 "not the folder that a change has here",
                 path.string(),
                 {},
                 "take the checkpoint from where it came"};
  }
  return {};
}

// No change writes into a shard with several names. One in a folder that came from elsewhere may be another's file.
Status CheckShards(const JournalReader& journal, const fs::path& folder) {
  for (const ShardChange& change : journal.journal().shards) {
    struct stat info = {};
    const fs::path path = folder / change.name;
    if (::lstat(path.c_str(), &info) != 0 || info.st_nlink <= 1) continue;
    return Error{ErrorKind::kLinkedFile,
                 "a file with several names, all of which would change",
                 path.string(),
                 {},
                 "put a copy in its place, or take the checkpoint from where it came"};
  }
  return {};
}

Status CheckFolder(const JournalReader& journal, const fs::path& folder) {
  if (auto status = CheckStaging(folder); !status) return status;
  return CheckShards(journal, folder);
}

// One of the two steps of every replacement. All of its names, those too that a killed process gave before, are on the
// disk in the end: the next step would write over a file that the other direction needs, had this one been lost.
Status ForEachReplacement(const JournalReader& journal, OutputFolder* folder, Status (Places::*step)(),
                          const fs::path& into) {
  for (const Replacement& replacement : journal.journal().replacements) {
    if (auto status = (Places(folder, replacement).*step)(); !status) return status;
  }
  return folder->SyncFolder(into);
}

}  // namespace

Status Redo(const JournalReader& journal, OutputFolder* folder, const std::atomic<bool>* cancel) {
  if (auto status = CheckFolder(journal, folder->path()); !status) return status;
  if (auto status = ForEachShard(journal, folder, &Shard::Redo, cancel); !status) return status;
  if (auto status = ForEachReplacement(journal, folder, &Places::PutOldAside, kOld); !status) return status;
  return ForEachReplacement(journal, folder, &Places::PutNewInPlace, "");
}

Status Undo(const JournalReader& journal, OutputFolder* folder) {
  if (auto status = CheckFolder(journal, folder->path()); !status) return status;
  if (auto status = ForEachShard(journal, folder, &Shard::Undo, nullptr); !status) return status;
  if (auto status = ForEachReplacement(journal, folder, &Places::PutNewAside, kNew); !status) return status;
  return ForEachReplacement(journal, folder, &Places::PutOldInPlace, "");
}

Status Retire(OutputFolder* folder) {
  if (auto status = folder->Remove(kJournalName); !status) {
    for (Error& error : status.errors())
      error.hint = "mend the cause and run quantport recover " + folder->path().string();
    return status;
  }
  if (auto status = folder->SyncFolder(""); !status) return status;
  auto status = folder->RemoveFolder(kStagingName);
  if (!status) {
    for (Error& error : status.errors()) error.hint = "remove it by hand; the checkpoint does not need it";
  }
  return status;
}

}  // namespace quantport
