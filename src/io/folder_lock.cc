#include "io/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>

namespace quantport {

namespace fs = std::filesystem;

namespace {

Error LockedError(const fs::path& folder) {
  return Error{ErrorKind::kLocked,
               "another quantport process is changing this folder",
               folder.string(),
               {},
               "wait until it is done"};
}

bool HasJournal(const fs::path& folder) {
  struct stat info = {};
  return ::lstat((folder / kJournalName).c_str(), &info) == 0;
}

}  // namespace

Result<FolderLock> FolderLock::Acquire(const fs::path& folder) {
  auto opened = File::OpenFolder(folder);
  if (!opened) return opened.errors();
  bool locked = false;
  auto status = opened->Ask("lock the folder", [&](int fd) {
    locked = ::flock(fd, LOCK_EX | LOCK_NB) == 0;
    return locked || errno == EWOULDBLOCK ? 0 : -1;
  });
  if (!status) return status.errors();
  if (!locked) return LockedError(folder);
  return FolderLock(std::move(*opened));
}

Status CheckNoJournal(const fs::path& folder) {
  if (!HasJournal(folder)) return {};
  return Error{ErrorKind::kUnfinishedChange,
               "a change in place was interrupted, and files of this folder may be unreadable until it is finished",
               (folder / kJournalName).string(),
               {},
               "run quantport recover " + folder.string() + " to finish it, or with --undo to take it back"};
}

Status CheckNoUnfinishedChange(const fs::path& folder) {
  if (!HasJournal(folder)) return {};
  if (auto lock = FolderLock::Acquire(folder); !lock && lock.errors()[0].kind == ErrorKind::kLocked)
    return lock.errors();
  return CheckNoJournal(folder);
}

}  // namespace quantport
