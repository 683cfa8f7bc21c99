#include "io/staging.h"

#include <fmt/format.h>
#include <unistd.h>

#include <new>
#include <system_error>
#include <vector>

#include "base/text.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

// What killed processes left for the same target: up to a whole checkpoint each.
void RemoveLeftovers(OutputFolder* parent, const std::string& prefix) {
  std::error_code code;
  std::vector<std::string> found;
  for (fs::directory_iterator it(parent->path(), code); !code && it != fs::directory_iterator(); it.increment(code)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(prefix) && IsDigits(std::string_view(name).substr(prefix.size())) &&
        it->symlink_status(code).type() == fs::file_type::directory)
      found.push_back(name);
  }
  for (const std::string& name : found) {
    if (const auto lock = FolderLock::Acquire(parent->path() / name); lock) (void)parent->RemoveFolder(name);
  }
}

}  // namespace

Status CheckTargetFree(const fs::path& target) {
  if (target.empty()) return Error{ErrorKind::kIo, "no output folder is named", {}, {}, "name one"};
  std::error_code code;
  const fs::file_status status = fs::symlink_status(target, code);
  if (status.type() == fs::file_type::not_found) return {};
  if (status.type() == fs::file_type::directory && fs::is_empty(target, code) && !code) return {};
  return Error{ErrorKind::kOutputExists,
               "the output exists already and is not an empty folder",
               target.string(),
               {},
               "choose another output, or remove it first"};
}

fs::path FinalPath(const fs::path& target) {
  if (target.empty()) return target;
  std::error_code code;
  const fs::path absolute = fs::absolute(target, code);  // nothing, where the working folder was removed
  const fs::path path = (code ? target : absolute).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

Result<StagingDirectory> StagingDirectory::Create(OutputFolder* folder, const std::string& target) {
  if (auto status = CheckTargetFree(folder->path() / target); !status) return status.errors();
  if (auto made = folder->MakeFolder(""); !made) return made.errors();
  const std::string prefix = fmt::format(".{}.quantport-", target);
  RemoveLeftovers(folder, prefix);
  const std::string name = fmt::format("{}{}", prefix, ::getpid());
  auto made = folder->MakeFolder(name);
  if (!made) return made.errors();
  if (!*made) {
    return Error{ErrorKind::kLocked,
                 "something is written here already",
                 (folder->path() / name).string(),
                 {},
                 "wait until it is done"};
  }
  StagingDirectory staging(folder, name, target);
  if (auto lock = FolderLock::Acquire(staging.path()); lock) staging.lock_ = std::move(*lock);
  return staging;
}

StagingDirectory::StagingDirectory(StagingDirectory&& other) noexcept
    : folder_(other.folder_),
      name_(std::exchange(other.name_, {})),
      target_(std::move(other.target_)),
      lock_(std::move(other.lock_)) {}

StagingDirectory::~StagingDirectory() {
  try {
    if (!name_.empty()) (void)folder_->RemoveFolder(name_);
  } catch (const std::bad_alloc&) {
    // The next run for the same output removes it.
  }
}

Status StagingDirectory::Commit(const std::atomic<bool>* cancel) {
  if (auto status = folder_->Rename(name_, target_, cancel); !status) {
    // rename(2) replaces an empty folder and refuses a filled one, so a target that appeared meanwhile is safe.
    auto free = CheckTargetFree(folder_->path() / target_);
    return free ? status : free;
  }
  name_.clear();
  return folder_->SyncFolder("");
}

}  // namespace quantport
