#include "io/direct.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "io/retry.h"

namespace quantport {
namespace {

bool SameFile(int a, int b) {
  struct stat info_a = {};
  struct stat info_b = {};
  return ::fstat(a, &info_a) == 0 && ::fstat(b, &info_b) == 0 && info_a.st_dev == info_b.st_dev &&
         info_a.st_ino == info_b.st_ino;
}

}  // namespace

DirectFile::DirectFile(File* file, Access access) : file_(file) {
  const int mode = access == Access::kRead ? O_RDONLY : O_WRONLY;
  // Any failure means the page cache: EINVAL where the file system has no direct transfers, EMFILE at the limit.
  fd_ = Retry([&] { return ::open(file->path().c_str(), mode | O_DIRECT | O_CLOEXEC | O_NONBLOCK); });
  usable_ = fd_ >= 0 && SameFile(fd_, file->descriptor());
}

DirectFile::~DirectFile() {
  if (fd_ >= 0) ::close(fd_);
}

Status DirectFile::ReadBlocks(std::span<std::byte> out, uint64_t offset, uint64_t needed) {
  uint64_t done = 0;
  while (done < needed && usable()) {
    const ssize_t n =
        Retry([&] { return ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done)); });
    if (n < 0 && errno != EINVAL) return SystemError("read", file_->path());
    if (n < 0) usable_.store(false, std::memory_order_relaxed);
    if (n <= 0) break;
    const auto count = static_cast<uint64_t>(n);
    if (done + count >= needed) return {};
    if (count < kDirectBlock) break;
    done += count / kDirectBlock * kDirectBlock;
  }
  if (done >= needed) return {};
  return file_->ReadAt(out.subspan(done, needed - done), offset + done);
}

Status DirectFile::WriteBlocks(std::span<const std::byte> data, uint64_t offset) {
  while (!data.empty() && usable()) {
    const ssize_t n = Retry([&] { return ::pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset)); });
    if (n < 0 && errno != EINVAL) return SystemError("write", file_->path());
    if (n < 0) usable_.store(false, std::memory_order_relaxed);
    if (n < static_cast<ssize_t>(kDirectBlock)) break;
    const uint64_t done = static_cast<uint64_t>(n) / kDirectBlock * kDirectBlock;
    data = data.subspan(done);
    offset += done;
  }
  return file_->WriteAt(data, offset);
}

}  // namespace quantport
