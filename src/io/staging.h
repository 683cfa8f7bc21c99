// A folder that becomes visible under its final name only when it is complete.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "io/folder_lock.h"
#include "io/output_folder.h"
#include "quantport/error.h"

namespace quantport {

// Creates `.<name>.quantport-<pid>` beside the final place and renames it there on Commit. Where Commit is not
// reached, the destructor removes it; a killed process leaves a hidden folder that no tool takes for a checkpoint, and
// that the next one with the same target removes. A folder whose process lives is known by its lock.
class StagingDirectory {
 public:
  // `folder`, which is made where it is missing, is to hold `target`, and must live as long as this does. Errors:
  // kOutputExists where that is there and not an empty folder, kIo.
  static Result<StagingDirectory> Create(OutputFolder* folder, const std::string& target);

  StagingDirectory(StagingDirectory&& other) noexcept;
  StagingDirectory& operator=(StagingDirectory&&) = delete;
  StagingDirectory(const StagingDirectory&) = delete;
  StagingDirectory& operator=(const StagingDirectory&) = delete;
  ~StagingDirectory();

  // The folder to write into: its name in the other, and where it is for readers.
  const std::string& name() const { return name_; }
  std::filesystem::path path() const { return folder_->path() / name_; }

  // Syncs what was written and renames the folder to its target. kCancelled before the rename.
  Status Commit(const std::atomic<bool>* cancel = nullptr);

 private:
  StagingDirectory(OutputFolder* folder, std::string name, std::string target)
      : folder_(folder), name_(std::move(name)), target_(std::move(target)) {}

  OutputFolder* folder_;
  std::string name_;  // empty once it is not ours to remove
  std::string target_;
  std::optional<FolderLock> lock_;  // none on file systems that have no locks
};

// Where a folder named by a user is to lie: "out" and "out/" are the same, but only the first has a name that can be
// put into a parent. Absolute.
std::filesystem::path FinalPath(const std::filesystem::path& target);

// kOutputExists where something stands at `target` that is not an empty folder.
Status CheckTargetFree(const std::filesystem::path& target);

}  // namespace quantport
