#include "io/clone.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "io/retry.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

// Reasons that lie in the file systems or files and leave copying as the way.
bool IsRefusal(int code) {
  constexpr int kRefusals[] = {EOPNOTSUPP, EXDEV, EINVAL, ENOTTY, ENOSYS, ETXTBSY, EPERM};
  return std::find(std::begin(kRefusals), std::end(kRefusals), code) != std::end(kRefusals);
}

Result<File> CreateUnnamed(const fs::path& directory) {
  auto file = File::CreateUnnamed(directory);
  std::error_code code;
  if (file || !fs::is_directory(directory, code)) return file;
  const fs::path hidden = directory / fmt::format(".quantport-clone-{}", ::getpid());
  auto named = File::Create(hidden);
  if (named) ::unlink(hidden.c_str());
  return named;
}

}  // namespace

Result<bool> CloneRange(const File& source, uint64_t from, File* target, uint64_t to, uint64_t bytes) {
  file_clone_range range = {};
  range.src_offset = from;
  range.src_length = bytes;
  range.dest_offset = to;
  bool cloned = false;
  const auto clone = [&](int fd) {
    cloned = Retry([&] { return ::ioctl(fd, FICLONERANGE, &range); }) == 0;
    return cloned || IsRefusal(errno) ? 0 : -1;
  };
  Status status;
  auto opened = source.Ask("share blocks", [&](int fd) {
    range.src_fd = fd;
    status = target->Change("share blocks", clone);
    return 0;
  });
  if (!opened) return opened.errors();
  if (!status) return status.errors();
  return cloned;
}

Result<uint64_t> BlockSize(const File& file) {
  struct statfs info = {};
  auto status = file.Ask("ask for the block size", [&](int fd) { return ::fstatfs(fd, &info); });
  if (!status) return status.errors();
  return static_cast<uint64_t>(std::max<decltype(info.f_bsize)>(info.f_bsize, 1));
}

Result<bool> CanClone(const ByteSource& source, const fs::path& directory) {
  if (source.local() == nullptr) return false;
  auto size = source.Size();
  if (!size) return size.errors();
  if (*size == 0) return false;
  auto target = CreateUnnamed(directory);
  if (!target) return target.errors();
  auto block = BlockSize(*target);
  if (!block) return block.errors();
  // A file's last block may be shared although it is not full, where it becomes the last of the other file too.
  return CloneRange(*source.local(), 0, &*target, 0, std::min(*size, *block));
}

}  // namespace quantport
