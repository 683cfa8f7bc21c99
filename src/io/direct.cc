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

DirectDescriptor::DirectDescriptor(const File& file, int mode) {
  // Any failure means the page cache: EINVAL where the file system has no direct transfers, EMFILE at the limit.
  fd_ = Retry([&] { return ::open(file.path().c_str(), mode | O_DIRECT | O_CLOEXEC | O_NONBLOCK); });
  usable_ = fd_ >= 0 && SameFile(fd_, file.descriptor());
}

DirectDescriptor::~DirectDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

DirectReader::DirectReader(const File* file) : file_(file), direct_(*file, O_RDONLY) {}

Status DirectReader::ReadBlocks(std::span<std::byte> out, uint64_t offset, uint64_t needed) {
  uint64_t done = 0;
  while (done < needed && usable()) {
    const ssize_t n = Retry([&] {
      return ::pread(direct_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    });
    if (n < 0 && errno != EINVAL) return SystemError("read", file_->path());
    if (n < 0) direct_.GiveUp();
    if (n <= 0) break;
    const auto count = static_cast<uint64_t>(n);
    if (done + count >= needed) return {};
    if (count < kDirectBlock) break;
    done += count / kDirectBlock * kDirectBlock;
  }
  if (done >= needed) return {};
  return file_->ReadAt(out.subspan(done, needed - done), offset + done);
}

DirectWriter::DirectWriter(File* file) : file_(file), direct_(*file, O_WRONLY) {}

Status DirectWriter::WriteBlocks(std::span<const std::byte> data, uint64_t offset) {
  while (!data.empty() && usable()) {
    const ssize_t n =
        Retry([&] { return ::pwrite(direct_.get(), data.data(), data.size(), static_cast<off_t>(offset)); });
    if (n < 0 && errno != EINVAL) return SystemError("write", file_->path());
    if (n < 0) direct_.GiveUp();
    if (n < static_cast<ssize_t>(kDirectBlock)) break;
    const uint64_t done = static_cast<uint64_t>(n) / kDirectBlock * kDirectBlock;
    data = data.subspan(done);
    offset += done;
  }
  return file_->WriteAt(data, offset);
}

}  // namespace quantport
