#include "io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <vector>

#include "base/checked.h"
#include "io/local_storage.h"
#include "io/read_whole.h"
#include "io/retry.h"

namespace quantport {

namespace fs = std::filesystem;

Error SystemError(std::string_view doing, const fs::path& path) {
  const int code = errno;
  std::string hint;
  if (code == ENOSPC || code == EDQUOT) hint = "free some space, or write to another file system";
  if (code == EACCES || code == EPERM || code == EROFS) hint = "check the permissions";
  return Error{ErrorKind::kIo,
               fmt::format("can't {}: {}", doing, std::generic_category().message(code)),
               path.string(),
               {},
               std::move(hint)};
}

File::File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

Result<File> File::OpenForReading(const fs::path& path) {
  // O_NONBLOCK: opening a fifo must not wait for a writer; it has no effect on regular files.
  const int fd = Retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  if (fd < 0) return SystemError("open", path);
  File file(fd, path);
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return SystemError("stat", path);
  if (!S_ISREG(info.st_mode)) return Error{ErrorKind::kIo, "not a regular file", path.string(), {}, {}};
  return file;
}

Result<File> File::Create(const fs::path& path) {
  const int fd = Retry([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644); });
  if (fd < 0) return SystemError("create", path);
  return File(fd, path);
}

Result<File> File::OpenForChange(const fs::path& path) {
  const int fd = Retry([&] { return ::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK); });
  if (fd < 0) return SystemError("open for writing", path);
  File file(fd, path);
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return SystemError("stat", path);
  if (!S_ISREG(info.st_mode)) return Error{ErrorKind::kIo, "not a regular file", path.string(), {}, {}};
  return file;
}

Result<File> File::OpenFolder(const fs::path& folder) {
  const int fd = Retry([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
    return Error{ErrorKind::kIo,
                 errno == ENOENT ? "no such folder" : "not a folder",
                 folder.string(),
                 {},
                 "give the folder that holds config.json and the safetensors files"};
  }
  if (fd < 0) return SystemError("open", folder);
  return File(fd, folder);
}

Result<File> File::CreateUnnamed(const fs::path& directory) {
  const int fd = Retry([&] { return ::open(directory.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600); });
  if (fd < 0) return SystemError("create a file in", directory);
  return File(fd, directory);
}

Result<uint64_t> File::Size() const {
  struct stat info = {};
  if (::fstat(fd_, &info) != 0) return SystemError("stat", path_);
  return static_cast<uint64_t>(info.st_size);
}

Result<FileStamp> File::Stamp() const {
  struct stat info = {};
  if (::fstat(fd_, &info) != 0) return SystemError("stat", path_);
  const auto nanoseconds = [](const timespec& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; };
  return FileStamp{info.st_dev, info.st_ino, static_cast<uint64_t>(info.st_size), nanoseconds(info.st_mtim),
                   nanoseconds(info.st_ctim)};
}

Result<size_t> File::ReadSome(std::span<std::byte> out, uint64_t offset) const {
  const ssize_t n = Retry([&] { return ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset)); });
  if (n < 0) return SystemError("read", path_);
  return static_cast<size_t>(n);
}

Status File::ReadAt(std::span<std::byte> out, uint64_t offset) const {
  return ReadWhole(out, offset, path_.string(),
                   [this](std::span<std::byte> rest, uint64_t at) { return ReadSome(rest, at); });
}

Status File::WriteAt(std::span<const std::byte> data, uint64_t offset) {
  while (!data.empty()) {
    const ssize_t n = Retry([&] { return ::pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset)); });
    if (n < 0) return SystemError("write", path_);
    data = data.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

Status File::SetSize(uint64_t bytes) {
  if (Retry([&] { return ::ftruncate(fd_, static_cast<off_t>(bytes)); }) != 0)
    return SystemError("set the size", path_);
  return {};
}

Status File::Allocate(uint64_t offset, uint64_t bytes) {
  if (bytes == 0) return {};
  // posix_fallocate would write every block on file systems without fallocate(2); the plain call says so instead.
  if (Retry([&] { return ::fallocate(fd_, 0, static_cast<off_t>(offset), static_cast<off_t>(bytes)); }) == 0) return {};
  if (errno != EOPNOTSUPP && errno != ENOSYS) return SystemError("reserve space", path_);
  auto size = Size();
  if (!size) return size.errors();
  return *size < offset + bytes ? SetSize(offset + bytes) : Status();
}

Status File::Sync() {
  if (Retry([&] { return ::fsync(fd_); }) != 0) return SystemError("sync", path_);
  return {};
}

Status File::SyncRange(uint64_t offset, uint64_t bytes, unsigned flags) {
  const int failed =
      Retry([&] { return ::sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), flags); });
  // The kernel tells a lost write to one call only: whoever ignored it here would hide it from fsync.
  if (failed != 0 && errno != EINVAL && errno != ESPIPE && errno != ENOSYS && errno != EOPNOTSUPP)
    return SystemError("write", path_);
  return {};
}

Status File::StartWriting(uint64_t offset, uint64_t bytes) { return SyncRange(offset, bytes, SYNC_FILE_RANGE_WRITE); }

Status File::FinishWriting(uint64_t offset, uint64_t bytes) {
  auto status =
      SyncRange(offset, bytes, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  AdviseDontNeed(offset, bytes);
  return status;
}

uint64_t File::CachedBytes(uint64_t offset, uint64_t bytes) const {
  // cachestat(2) of Linux 6.5, which neither glibc nor the kernel headers of Debian 12 know.
  constexpr long kCachestat = 451;
  struct {
    uint64_t offset;
    uint64_t bytes;
  } range = {offset, bytes};
  struct {
    uint64_t cached, dirty, writing, evicted, recently_evicted;
  } pages = {};
  if (::syscall(kCachestat, fd_, &range, &pages, 0) == 0)
    return pages.cached * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return ResidentBytes(offset, bytes);
}

uint64_t File::ResidentBytes(uint64_t offset, uint64_t bytes) const {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t begin = offset / page * page;
  const uint64_t length = offset + bytes - begin;
  if (length == 0) return 0;
  void* const mapping = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, fd_, static_cast<off_t>(begin));
  if (mapping == MAP_FAILED) return 0;
  std::vector<unsigned char> resident(CeilDiv(length, page));
  const bool told = ::mincore(mapping, length, resident.data()) == 0;
  ::munmap(mapping, length);
  if (!told) return 0;
  return page * static_cast<uint64_t>(std::count_if(resident.begin(), resident.end(),
                                                    [](unsigned char state) { return (state & 1) != 0; }));
}

void File::AdviseSequential() const { (void)::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL); }

void File::AdviseDontNeed(uint64_t offset, uint64_t bytes) const {
  (void)::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
}

Result<std::string> ReadTextFile(const fs::path& path, uint64_t max_bytes) {
  auto file = LocalStorage().OpenFile(path.string());
  if (!file) return file.errors();
  return ReadText(**file, max_bytes);
}

Status SyncDirectory(const fs::path& path) {
  const int fd = Retry([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0) return SystemError("open", path);
  const int failed = Retry([&] { return ::fsync(fd); });
  const Error error = SystemError("sync", path);
  ::close(fd);
  if (failed != 0) return error;
  return {};
}

}  // namespace quantport
