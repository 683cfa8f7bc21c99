#include "journal/replay.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <system_error>

#include "io/folder_lock.h"
#include "journal/shift.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kLengthField = 8;

Status WriteAndSync(File* file, std::string_view bytes, uint64_t offset) {
  if (auto status = file->WriteAt(std::as_bytes(std::span(bytes)), offset); !status) return status;
  return file->Sync();
}

// No reader takes a file for a checkpoint whose header has no bytes. Where that is so already, the field may be in a
// hole that a full disk leaves one: taking back must not need space.
Status MakeUnreadable(File* file) {
  constexpr std::string_view kNone("\0\0\0\0\0\0\0\0", kLengthField);
  std::string now(kLengthField, '\0');
  if (auto status = file->ReadAt(std::as_writable_bytes(std::span(now)), 0); !status) return status;
  return now == kNone ? file->Sync() : WriteAndSync(file, kNone, 0);
}

// The length last: when it is on the disk, everything else is.
Status WriteHeader(File* file, std::string_view header) {
  if (auto status = WriteAndSync(file, header.substr(kLengthField), kLengthField); !status) return status;
  return WriteAndSync(file, header.substr(0, kLengthField), 0);
}

class Shard {
 public:
  static Result<Shard> Open(const JournalReader& journal, const fs::path& folder, const ShardChange& change) {
    auto file = File::OpenForChange(folder / change.name);
    if (!file) return file.errors();
    return Shard(journal, change, std::move(*file));
  }

  Status Redo() {
    auto header = journal_.Read(change_.new_header);
    if (!header) return header.errors();
    // A file that is neither the old one nor on the way is left alone.
    if (auto shift = FindShift(file_, change_, journal_); !shift) return shift.errors();
    if (auto status = MakeUnreadable(&file_); !status) return status;
    if (auto status = FinishShift(&file_, change_, journal_); !status) return status;
    for (const Patch& patch : change_.patches) {
      if (auto status = Put(patch.new_bytes, patch.offset); !status) return status;
    }
    return WriteHeader(&file_, *header);
  }

  Status Undo() {
    auto header = journal_.Read(change_.old_header);
    if (!header) return header.errors();
    auto shift = FindShift(file_, change_, journal_);
    if (!shift) return shift.errors();
    if (auto status = MakeUnreadable(&file_); !status) return status;
    // Patches are written when all blocks have moved, and not before.
    if (shift->begun && shift->gap == 0) {
      for (const Patch& patch : change_.patches) {
        if (patch.old_bytes.bytes == 0) continue;
        if (auto status = Put(patch.old_bytes, patch.offset); !status) return status;
      }
      if (auto status = file_.Sync(); !status) return status;
    }
    if (auto status = UndoShift(&file_, change_, journal_); !status) return status;
    return WriteHeader(&file_, *header);
  }

 private:
  Shard(const JournalReader& journal, const ShardChange& change, File file)
      : journal_(journal), change_(change), file_(std::move(file)) {}

  Status Put(const Piece& piece, uint64_t offset) {
    auto bytes = journal_.Read(piece);
    if (!bytes) return bytes.errors();
    return file_.WriteAt(std::as_bytes(std::span(*bytes)), offset);
  }

  const JournalReader& journal_;
  const ShardChange& change_;
  File file_;
};

bool Exists(const fs::path& path) {
  struct stat info = {};
  return ::lstat(path.c_str(), &info) == 0 && (S_ISREG(info.st_mode) || S_ISLNK(info.st_mode));
}

Status Rename(const fs::path& from, const fs::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) return SystemError("rename to its place", to);
  return {};
}

// Where the files of one replacement are: at any instant at most the name, the new and the old one exist, and which do
// says how far the change has come.
struct Places {
  fs::path name;
  fs::path new_file;
  fs::path old_file;

  Places(const fs::path& folder, const Replacement& replacement)
      : name(folder / replacement.name),
        new_file(folder / kStagingName / "new" / replacement.name),
        old_file(folder / kStagingName / "old" / replacement.name) {}
};

Status RedoReplacement(const fs::path& folder, const Replacement& replacement) {
  const Places places(folder, replacement);
  if (replacement.has_new && !Exists(places.new_file)) return {};
  if (Exists(places.name) && !Exists(places.old_file)) {
    // A link is detached here: the name is taken from it, and the file behind it stays as it is.
    if (auto status = Rename(places.name, places.old_file); !status) return status;
  }
  return replacement.has_new ? Rename(places.new_file, places.name) : Status();
}

Status UndoReplacement(const fs::path& folder, const Replacement& replacement) {
  const Places places(folder, replacement);
  if (replacement.has_new && !Exists(places.new_file) && Exists(places.name)) {
    if (auto status = Rename(places.name, places.new_file); !status) return status;
  }
  return Exists(places.old_file) ? Rename(places.old_file, places.name) : Status();
}

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

Status SyncFolders(const fs::path& folder) {
  if (auto status = SyncDirectory(folder / kStagingName / "old"); !status) return status;
  if (auto status = SyncDirectory(folder / kStagingName / "new"); !status) return status;
  return SyncDirectory(folder);
}

Error CancelledError() { return Error{ErrorKind::kCancelled, "stopped on request", {}, {}, {}}; }

}  // namespace

Status Redo(const JournalReader& journal, const fs::path& folder, const std::atomic<bool>* cancel) {
  if (auto status = CheckStaging(folder); !status) return status;
  for (const ShardChange& change : journal.journal().shards) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) return CancelledError();
    auto shard = Shard::Open(journal, folder, change);
    if (!shard) return shard.errors();
    if (auto status = shard->Redo(); !status) return status;
  }
  for (const Replacement& replacement : journal.journal().replacements) {
    if (auto status = RedoReplacement(folder, replacement); !status) return status;
  }
  return SyncFolders(folder);
}

Status Undo(const JournalReader& journal, const fs::path& folder) {
  if (auto status = CheckStaging(folder); !status) return status;
  for (const ShardChange& change : journal.journal().shards) {
    auto shard = Shard::Open(journal, folder, change);
    if (!shard) return shard.errors();
    if (auto status = shard->Undo(); !status) return status;
  }
  for (const Replacement& replacement : journal.journal().replacements) {
    if (auto status = UndoReplacement(folder, replacement); !status) return status;
  }
  return SyncFolders(folder);
}

Status Retire(const fs::path& folder) {
  if (::unlink((folder / kJournalName).c_str()) != 0 && errno != ENOENT) {
    Error error = SystemError("remove the journal", folder / kJournalName);
    error.hint = "mend the cause and run quantport recover " + folder.string();
    return error;
  }
  if (auto status = SyncDirectory(folder); !status) return status;
  std::error_code code;
  fs::remove_all(folder / kStagingName, code);
  if (code)
    return Error{ErrorKind::kIo,
                 fmt::format("can't remove: {}", code.message()),
                 (folder / kStagingName).string(),
                 {},
                 "remove it by hand; the checkpoint does not need it"};
  return {};
}

}  // namespace quantport
