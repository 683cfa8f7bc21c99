// A folder that becomes visible under its final name only when it is complete.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "io/folder_lock.h"
#include "quantport/error.h"

namespace quantport {

// Creates `.<name>.quantport-<pid>` beside the final place and renames it there on Commit. Where Commit is not
// reached, the destructor removes it; a killed process leaves a hidden folder that no tool takes for a checkpoint, and
// that the next one with the same target removes. A folder whose process lives is known by its lock.
class StagingDirectory {
 public:
  // Errors: kOutputExists where `target` is there and not an empty folder, kIo.
  static Result<StagingDirectory> Create(const std::filesystem::path& target);

  StagingDirectory(StagingDirectory&& other) noexcept;
  StagingDirectory& operator=(StagingDirectory&&) = delete;
  StagingDirectory(const StagingDirectory&) = delete;
  StagingDirectory& operator=(const StagingDirectory&) = delete;
  ~StagingDirectory();

  // The folder to write into.
  const std::filesystem::path& path() const { return path_; }

  // Renames the folder to its target. Every file in it must have been fsynced: a rename that reaches the disk
  // before the data would leave a finished-looking checkpoint of zeros after a power loss.
  Status Commit();

 private:
  StagingDirectory(std::filesystem::path path, std::filesystem::path target, std::optional<FolderLock> lock)
      : path_(std::move(path)), target_(std::move(target)), lock_(std::move(lock)) {}

  std::filesystem::path path_;
  std::filesystem::path target_;
  std::optional<FolderLock> lock_;  // none on file systems that have no locks
};

// kOutputExists where something stands at `target` that is not an empty folder.
Status CheckTargetFree(const std::filesystem::path& target);

}  // namespace quantport
