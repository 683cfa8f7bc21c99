#include "io/staging.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>
#include <vector>

#include "base/text.h"
#include "io/file.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

// "out" and "out/" name the same folder, but only the first has a file name to put a sibling beside.
fs::path Normal(const fs::path& target) {
  fs::path path = fs::absolute(target).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

// What killed processes left for the same target: up to a whole checkpoint each.
void RemoveLeftovers(const fs::path& parent, const std::string& prefix) {
  std::error_code code;
  std::vector<fs::path> found;
  for (fs::directory_iterator it(parent, code); !code && it != fs::directory_iterator(); it.increment(code)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(prefix) && IsDigits(std::string_view(name).substr(prefix.size())) &&
        it->symlink_status(code).type() == fs::file_type::directory)
      found.push_back(it->path());
  }
  for (const fs::path& folder : found) {
    if (const auto lock = FolderLock::Acquire(folder); lock) fs::remove_all(folder, code);
  }
}

}  // namespace

Status CheckTargetFree(const fs::path& target) {
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

Result<StagingDirectory> StagingDirectory::Create(const fs::path& target) {
  if (target.empty()) return Error{ErrorKind::kIo, "no output folder is named", {}, {}, "name one"};
  const fs::path final_path = Normal(target);
  if (auto status = CheckTargetFree(final_path); !status) return status.errors();
  std::error_code code;
  fs::create_directories(final_path.parent_path(), code);
  if (code) {
    return Error{ErrorKind::kIo,
                 fmt::format("can't create the folder: {}", code.message()),
                 final_path.parent_path().string(),
                 {},
                 {}};
  }
  const std::string prefix = fmt::format(".{}.quantport-", final_path.filename().string());
  RemoveLeftovers(final_path.parent_path(), prefix);
  const fs::path path = final_path.parent_path() / fmt::format("{}{}", prefix, ::getpid());
  if (::mkdir(path.c_str(), 0755) != 0) return SystemError("create the folder", path);
  auto lock = FolderLock::Acquire(path);
  return StagingDirectory(path, final_path, lock ? std::optional(std::move(*lock)) : std::nullopt);
}

StagingDirectory::StagingDirectory(StagingDirectory&& other) noexcept
    : path_(std::exchange(other.path_, {})), target_(std::move(other.target_)), lock_(std::move(other.lock_)) {}

StagingDirectory::~StagingDirectory() {
  if (path_.empty()) return;
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

Status StagingDirectory::Commit() {
  std::error_code code;
  for (fs::recursive_directory_iterator it(path_, code); !code && it != fs::recursive_directory_iterator();
       it.increment(code)) {
    if (!it->is_directory()) continue;
    if (auto status = SyncDirectory(it->path()); !status) return status;
  }
  if (auto status = SyncDirectory(path_); !status) return status;
  // rename(2) replaces an empty folder and refuses a filled one, so a target that appeared meanwhile is safe.
  if (std::rename(path_.c_str(), target_.c_str()) != 0) {
    if (errno == ENOTEMPTY || errno == EEXIST) return CheckTargetFree(target_);
    return SystemError("rename the finished output to its place", target_);
  }
  path_.clear();
  return SyncDirectory(target_.parent_path());
}

}  // namespace quantport
