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

Result<File> File::OpenRegular(const fs::path& path, int flags, std::string_view doing) {
  // O_NONBLOCK: opening a fifo must not wait for its other end; it has no effect on regular files.
  auto descriptor = Descriptor::Open(path, flags | O_NONBLOCK, doing);
  if (!descriptor) return descriptor.errors();
  File file(std::move(*descriptor));
  struct stat info = {};
  if (auto status = file.Ask("stat", [&](int fd) { return ::fstat(fd, &info); }); !status) return status.errors();
  if (!S_ISREG(info.st_mode)) return Error{ErrorKind::kIo, "not a regular file", path.string(), {}, {}};
  return file;
}

Result<File> File::OpenForReading(const fs::path& path) { return OpenRegular(path, O_RDONLY, "open"); }

Result<File> File::OpenForChange(const fs::path& path) {
  return OpenRegular(path, O_RDWR | O_NOFOLLOW, "open for writing");
}

Result<File> File::Create(const fs::path& path) {
  auto descriptor = Descriptor::Open(path, O_RDWR | O_CREAT | O_EXCL, "create");
  if (!descriptor) return descriptor.errors();
  return File(std::move(*descriptor));
}

Result<File> File::OpenFolder(const fs::path& folder) {
  std::error_code code;
  if (!fs::is_directory(folder, code)) {
    return Error{ErrorKind::kIo,
                 fs::exists(folder, code) ? "not a folder" : "no such folder",
                 folder.string(),
                 {},
                 "give the folder that holds config.json and the safetensors files"};
  }
  auto descriptor = Descriptor::OpenForGood(folder, O_RDONLY | O_DIRECTORY, "open");
  if (!descriptor) return descriptor.errors();
  return File(std::move(*descriptor));
}

Result<File> File::CreateUnnamed(const fs::path& directory) {
  auto descriptor = Descriptor::OpenForGood(directory, O_RDWR | O_TMPFILE, "create a file in");
  if (!descriptor) return descriptor.errors();
  return File(std::move(*descriptor));
}

Result<uint64_t> File::Size() const {
  auto stamp = Stamp();
  if (!stamp) return stamp.errors();
  return stamp->size;
}

Result<FileStamp> File::Stamp() const {
  struct stat info = {};
  if (auto status = Ask("stat", [&](int fd) { return ::fstat(fd, &info); }); !status) return status.errors();
  const auto nanoseconds = [](const timespec& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; };
  return FileStamp{info.st_dev, info.st_ino, static_cast<uint64_t>(info.st_size), nanoseconds(info.st_mtim),
                   nanoseconds(info.st_ctim)};
}

Result<size_t> File::ReadSome(std::span<std::byte> out, uint64_t offset) const {
  ssize_t count = 0;
  auto status = Ask("read", [&](int fd) {
    return count = Retry([&] { return ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset)); });
  });
  if (!status) return status.errors();
  return static_cast<size_t>(count);
}

Status File::ReadAt(std::span<std::byte> out, uint64_t offset) const {
  return ReadWhole(out, offset, path().string(),
                   [this](std::span<std::byte> rest, uint64_t at) { return ReadSome(rest, at); });
}

Status File::WriteAt(std::span<const std::byte> data, uint64_t offset) {
  return Change("write", [&](int fd) {
    while (!data.empty()) {
      const ssize_t n = Retry([&] { return ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset)); });
      if (n < 0) return -1;
      data = data.subspan(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
    return 0;
  });
}

Status File::SetSize(uint64_t bytes) {
  return Change("set the size",
                [&](int fd) { return Retry([&] { return ::ftruncate(fd, static_cast<off_t>(bytes)); }); });
}

Status File::Allocate(uint64_t offset, uint64_t bytes) {
  if (bytes == 0) return {};
  // posix_fallocate would write every block on file systems without fallocate(2); the plain call says so instead.
  bool can = true;
  auto status = Change("reserve space", [&](int fd) {
    if (Retry([&] { return ::fallocate(fd, 0, static_cast<off_t>(offset), static_cast<off_t>(bytes)); }) == 0) return 0;
    can = errno != EOPNOTSUPP && errno != ENOSYS;
    return can ? -1 : 0;
  });
  if (!status || can) return status;
  auto size = Size();
  if (!size) return size.errors();
  return *size < offset + bytes ? SetSize(offset + bytes) : Status();
}

Status File::Sync() { return descriptor_->Sync(); }

Status File::SyncRange(uint64_t offset, uint64_t bytes, unsigned flags) {
  return Ask("write", [&](int fd) {
    const int failed =
        Retry([&] { return ::sync_file_range(fd, static_cast<off_t>(offset), static_cast<off_t>(bytes), flags); });
    // The kernel tells a lost write to one call only: whoever ignored it here would hide it from fsync.
    const bool lost = failed != 0 && errno != EINVAL && errno != ESPIPE && errno != ENOSYS && errno != EOPNOTSUPP;
    return lost ? -1 : 0;
  });
}

Status File::StartWriting(uint64_t offset, uint64_t bytes) { return SyncRange(offset, bytes, SYNC_FILE_RANGE_WRITE); }

Status File::FinishWriting(uint64_t offset, uint64_t bytes) {
  auto status =
      SyncRange(offset, bytes, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  AdviseDontNeed(offset, bytes);
  return status;
}

namespace {

// As CachedBytes, by mapping the range.
uint64_t ResidentBytes(int fd, uint64_t offset, uint64_t bytes) {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t begin = offset / page * page;
  const uint64_t length = offset + bytes - begin;
  if (length == 0) return 0;
  void* const mapping = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(begin));
  if (mapping == MAP_FAILED) return 0;
  std::vector<unsigned char> resident(CeilDiv(length, page));
  const bool told = ::mincore(mapping, length, resident.data()) == 0;
  ::munmap(mapping, length);
  if (!told) return 0;
  return page * static_cast<uint64_t>(std::count_if(resident.begin(), resident.end(),
                                                    [](unsigned char state) { return (state & 1) != 0; }));
}

}  // namespace

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
  uint64_t cached = 0;
  (void)Ask("ask for cached pages", [&](int fd) {
    const bool told = ::syscall(kCachestat, fd, &range, &pages, 0) == 0;
    cached = told ? pages.cached * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)) : ResidentBytes(fd, offset, bytes);
    return 0;
  });
  return cached;
}

void File::AdviseSequential() const { descriptor_->AdviseSequential(); }

void File::AdviseDontNeed(uint64_t offset, uint64_t bytes) const {
  (void)Ask("advise", [&](int fd) {
    return ::posix_fadvise(fd, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
  });
}

Result<std::string> ReadTextFile(const fs::path& path, uint64_t max_bytes) {
  auto file = LocalStorage().OpenFile(path.string());
  if (!file) return file.errors();
  return ReadText(**file, max_bytes);
}

Status SyncDirectory(const fs::path& path) {
  auto folder = Descriptor::OpenForGood(path, O_RDONLY | O_DIRECTORY, "open");
  return folder ? (*folder)->Sync() : Status(folder.errors());
}

}  // namespace quantport
