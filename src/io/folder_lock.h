// Keeps two processes from changing one folder at the same time, and names what a change leaves in it.
#pragma once

#include <filesystem>
#include <string_view>

#include "io/file.h"
#include "quantport/error.h"

namespace quantport {

// Of a folder that is being changed in place, or whose change was interrupted: how to finish or undo it, and the files
// that take others' places. Hidden, so that nothing takes them for a part of the checkpoint.
inline constexpr std::string_view kJournalName = ".quantport-journal";
inline constexpr std::string_view kStagingName = ".quantport-staging";

// Held until it is destroyed or the process ends, however it ends: a killed process leaves no lock behind.
class FolderLock {
 public:
  // Errors: kLocked where another process has it, kIo.
  static Result<FolderLock> Acquire(const std::filesystem::path& folder);

  const File& folder() const { return folder_; }

 private:
  explicit FolderLock(File folder) : folder_(std::move(folder)) {}

  File folder_;
};

// kLocked where a change of the folder is under way, kUnfinishedChange where one was interrupted.
Status CheckNoUnfinishedChange(const std::filesystem::path& folder);

// The same for one that holds the folder's lock, so that no other process can be changing it.
Status CheckNoJournal(const std::filesystem::path& folder);

}  // namespace quantport
