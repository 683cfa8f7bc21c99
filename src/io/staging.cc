#include "io/staging.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "io/file.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

// "out" and "out/" name the same folder, but only the first has a file name to put a sibling beside.
fs::path Normal(const fs::path& target) {
  fs::path path = fs::absolute(target).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
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
  const fs::path path =
      final_path.parent_path() / fmt::format(".{}.quantport-{}", final_path.filename().string(), ::getpid());
  // Left over by a killed process that had the same number.
  fs::remove_all(path, code);
  if (::mkdir(path.c_str(), 0755) != 0) return SystemError("create the folder", path);
  return StagingDirectory(path, final_path);
}

StagingDirectory::StagingDirectory(StagingDirectory&& other) noexcept
    : path_(std::exchange(other.path_, {})), target_(std::move(other.target_)) {}

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
