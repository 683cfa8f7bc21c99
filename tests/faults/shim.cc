// Stands between a program and the C library, by LD_PRELOAD, and makes calls fail, stop half way, or kill the process.
//
// The C library's own calls among each other can't be caught: what stdio writes, the parts of posix_fallocate. The
// program's and the C++ library's all can, std::filesystem's too.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <vector>

#include "faults/rules.h"

using quantport::faults::Call;
using quantport::faults::Decide;
using quantport::faults::Family;
using quantport::faults::Fate;
using quantport::faults::Kill;

namespace {

// The C library's function of the same name and type.
template <typename Function>
Function* Real(Function*, const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

#define REAL(function) static auto* const real = Real(&function, #function)

// The call as its fate has it; `perform` is told how.
template <typename Perform>
auto Carry(const Call& call, Perform perform) -> decltype(perform(Fate())) {
  const Fate fate = Decide(call);
  if (fate.error != 0) {
    errno = fate.error;
    return -1;
  }
  const auto result = fate.skip ? 0 : perform(fate);
  if (fate.kill) Kill();
  return result;
}

// The same for calls that transfer `bytes`.
template <typename Perform>
ssize_t Transfer(const Call& call, size_t bytes, Perform perform) {
  return Carry(call, [&](const Fate& fate) { return perform(fate.Transfer(bytes)); });
}

bool HasMode(int flags) { return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE; }

bool Creates(int flags) { return HasMode(flags) || (flags & O_TRUNC) != 0; }

mode_t ModeArgument(int flags, va_list arguments) { return HasMode(flags) ? va_arg(arguments, mode_t) : 0; }

// The first `bytes` of a vector of buffers.
std::vector<iovec> Shortened(const iovec* buffers, int count, size_t bytes) {
  std::vector<iovec> out;
  for (int i = 0; i < count; ++i) {
    const size_t part = std::min(bytes, buffers[i].iov_len);
    bytes -= part;
    if (part > 0) out.push_back({buffers[i].iov_base, part});
  }
  return out;
}

size_t Total(const iovec* buffers, int count) {
  size_t total = 0;
  for (int i = 0; i < count; ++i) total += buffers[i].iov_len;
  return total;
}

// Where the first extent of the file's second half begins, beyond `offset`; `offset` where all is one extent.
off_t MiddleExtent(int fd, off_t offset, off_t size) {
  constexpr size_t kExtents = 256;
  alignas(fiemap) std::array<char, sizeof(fiemap) + kExtents * sizeof(fiemap_extent)> buffer = {};
  auto* map = reinterpret_cast<fiemap*>(buffer.data());
  map->fm_length = FIEMAP_MAX_OFFSET;
  map->fm_flags = FIEMAP_FLAG_SYNC;
  map->fm_extent_count = kExtents;
  static auto* const real = Real(&ioctl, "ioctl");
  if (real(fd, FS_IOC_FIEMAP, map) != 0) return offset;
  const auto* extents = reinterpret_cast<const fiemap_extent*>(buffer.data() + sizeof(fiemap));
  for (size_t i = 0; i < map->fm_mapped_extents; ++i) {
    const auto begin = static_cast<off_t>(extents[i].fe_logical);
    if (begin > offset && begin >= size / 2) return begin;
  }
  return offset;
}

// What a power loss leaves of a shift: file systems move one extent after the other, in several transactions. An
// insertion changes the size first and begins at the end; a removal begins at its offset and changes the size last.
void HalfShift(int fd, int mode, off_t offset, off_t length, bool second_half) {
  static auto* const allocate = Real(&fallocate, "fallocate");
  static auto* const truncate_file = Real(&ftruncate, "ftruncate");
  struct stat info = {};
  if (fstat(fd, &info) != 0) return;
  const off_t middle = MiddleExtent(fd, offset, info.st_size);
  const bool some = second_half && middle > offset + (mode == FALLOC_FL_COLLAPSE_RANGE ? length : 0);
  if (mode == FALLOC_FL_INSERT_RANGE) {
    (void)!(some ? allocate(fd, mode, middle, length) : truncate_file(fd, info.st_size + length));
  } else if (some) {
    if (allocate(fd, mode, offset, length) == 0) (void)!allocate(fd, FALLOC_FL_INSERT_RANGE, middle - length, length);
  } else {
    (void)!allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  }
}

template <typename Allocate>
int CarryAllocation(const char* name, int fd, int mode, off_t offset, off_t length, Allocate real) {
  return Carry(Call{Family::kFallocate, name, fd}, [&](const Fate& fate) {
    if (!fate.torn) return real(fd, mode, offset, length);
    if (mode == FALLOC_FL_INSERT_RANGE || mode == FALLOC_FL_COLLAPSE_RANGE)
      HalfShift(fd, mode, offset, length, fate.torn_shift);
    return 0;
  });
}

bool Clones(unsigned long request) { return request == FICLONE || request == FICLONERANGE; }

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  REAL(open);
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = ModeArgument(flags, arguments);
  va_end(arguments);
  if (!Creates(flags)) return real(path, flags, mode);
  return Carry(Call{Family::kCreate, "open", -1, path}, [&](const Fate&) { return real(path, flags, mode); });
}

int open64(const char* path, int flags, ...) {
  REAL(open64);
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = ModeArgument(flags, arguments);
  va_end(arguments);
  if (!Creates(flags)) return real(path, flags, mode);
  return Carry(Call{Family::kCreate, "open", -1, path}, [&](const Fate&) { return real(path, flags, mode); });
}

int openat(int folder, const char* path, int flags, ...) {
  REAL(openat);
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = ModeArgument(flags, arguments);
  va_end(arguments);
  if (!Creates(flags)) return real(folder, path, flags, mode);
  return Carry(Call{Family::kCreate, "openat", -1, path}, [&](const Fate&) { return real(folder, path, flags, mode); });
}

int openat64(int folder, const char* path, int flags, ...) {
  REAL(openat64);
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = ModeArgument(flags, arguments);
  va_end(arguments);
  if (!Creates(flags)) return real(folder, path, flags, mode);
  return Carry(Call{Family::kCreate, "openat", -1, path}, [&](const Fate&) { return real(folder, path, flags, mode); });
}

ssize_t write(int fd, const void* data, size_t bytes) {
  REAL(write);
  return Transfer(Call{Family::kWrite, "write", fd}, bytes, [&](size_t n) { return real(fd, data, n); });
}

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  REAL(pwrite);
  return Transfer(Call{Family::kWrite, "pwrite", fd}, bytes, [&](size_t n) { return real(fd, data, n, offset); });
}

ssize_t pwrite64(int fd, const void* data, size_t bytes, off64_t offset) {
  REAL(pwrite64);
  return Transfer(Call{Family::kWrite, "pwrite", fd}, bytes, [&](size_t n) { return real(fd, data, n, offset); });
}

ssize_t writev(int fd, const iovec* buffers, int count) {
  REAL(writev);
  return Transfer(Call{Family::kWrite, "writev", fd}, Total(buffers, count), [&](size_t n) {
    const std::vector<iovec> part = Shortened(buffers, count, n);
    return real(fd, part.data(), static_cast<int>(part.size()));
  });
}

ssize_t pwritev(int fd, const iovec* buffers, int count, off_t offset) {
  REAL(pwritev);
  return Transfer(Call{Family::kWrite, "pwritev", fd}, Total(buffers, count), [&](size_t n) {
    const std::vector<iovec> part = Shortened(buffers, count, n);
    return real(fd, part.data(), static_cast<int>(part.size()), offset);
  });
}

ssize_t read(int fd, void* data, size_t bytes) {
  REAL(read);
  return Transfer(Call{Family::kRead, "read", fd}, bytes, [&](size_t n) { return real(fd, data, n); });
}

ssize_t pread(int fd, void* data, size_t bytes, off_t offset) {
  REAL(pread);
  return Transfer(Call{Family::kRead, "pread", fd}, bytes, [&](size_t n) { return real(fd, data, n, offset); });
}

ssize_t pread64(int fd, void* data, size_t bytes, off64_t offset) {
  REAL(pread64);
  return Transfer(Call{Family::kRead, "pread", fd}, bytes, [&](size_t n) { return real(fd, data, n, offset); });
}

ssize_t preadv(int fd, const iovec* buffers, int count, off_t offset) {
  REAL(preadv);
  return Transfer(Call{Family::kRead, "preadv", fd}, Total(buffers, count), [&](size_t n) {
    const std::vector<iovec> part = Shortened(buffers, count, n);
    return real(fd, part.data(), static_cast<int>(part.size()), offset);
  });
}

ssize_t copy_file_range(int from, off64_t* from_offset, int to, off64_t* to_offset, size_t bytes, unsigned flags) {
  REAL(copy_file_range);
  return Transfer(Call{Family::kCopy, "copy_file_range", to}, bytes,
                  [&](size_t n) { return real(from, from_offset, to, to_offset, n, flags); });
}

ssize_t sendfile(int to, int from, off_t* offset, size_t bytes) noexcept {
  REAL(sendfile);
  return Transfer(Call{Family::kCopy, "sendfile", to}, bytes, [&](size_t n) { return real(to, from, offset, n); });
}

int fsync(int fd) {
  REAL(fsync);
  return Carry(Call{Family::kSync, "fsync", fd}, [&](const Fate&) { return real(fd); });
}

int fdatasync(int fd) {
  REAL(fdatasync);
  return Carry(Call{Family::kSync, "fdatasync", fd}, [&](const Fate&) { return real(fd); });
}

int syncfs(int fd) noexcept {
  REAL(syncfs);
  return Carry(Call{Family::kSync, "syncfs", fd}, [&](const Fate&) { return real(fd); });
}

int sync_file_range(int fd, off64_t offset, off64_t bytes, unsigned flags) {
  REAL(sync_file_range);
  return Carry(Call{Family::kSync, "sync_file_range", fd}, [&](const Fate&) { return real(fd, offset, bytes, flags); });
}

int rename(const char* from, const char* to) noexcept {
  REAL(rename);
  return Carry(Call{Family::kRename, "rename", -1, to}, [&](const Fate&) { return real(from, to); });
}

int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  REAL(renameat);
  return Carry(Call{Family::kRename, "renameat", -1, to},
               [&](const Fate&) { return real(from_folder, from, to_folder, to); });
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  REAL(renameat2);
  return Carry(Call{Family::kRename, "renameat2", -1, to},
               [&](const Fate&) { return real(from_folder, from, to_folder, to, flags); });
}

int unlink(const char* path) noexcept {
  REAL(unlink);
  return Carry(Call{Family::kRemove, "unlink", -1, path}, [&](const Fate&) { return real(path); });
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  REAL(unlinkat);
  return Carry(Call{Family::kRemove, "unlinkat", -1, path}, [&](const Fate&) { return real(folder, path, flags); });
}

int rmdir(const char* path) noexcept {
  REAL(rmdir);
  return Carry(Call{Family::kRemove, "rmdir", -1, path}, [&](const Fate&) { return real(path); });
}

int remove(const char* path) noexcept {
  REAL(remove);
  return Carry(Call{Family::kRemove, "remove", -1, path}, [&](const Fate&) { return real(path); });
}

int mkdir(const char* path, mode_t mode) noexcept {
  REAL(mkdir);
  return Carry(Call{Family::kMkdir, "mkdir", -1, path}, [&](const Fate&) { return real(path, mode); });
}

int mkdirat(int folder, const char* path, mode_t mode) noexcept {
  REAL(mkdirat);
  return Carry(Call{Family::kMkdir, "mkdirat", -1, path}, [&](const Fate&) { return real(folder, path, mode); });
}

int link(const char* from, const char* to) noexcept {
  REAL(link);
  return Carry(Call{Family::kLink, "link", -1, to}, [&](const Fate&) { return real(from, to); });
}

int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) noexcept {
  REAL(linkat);
  return Carry(Call{Family::kLink, "linkat", -1, to},
               [&](const Fate&) { return real(from_folder, from, to_folder, to, flags); });
}

int symlink(const char* from, const char* to) noexcept {
  REAL(symlink);
  return Carry(Call{Family::kLink, "symlink", -1, to}, [&](const Fate&) { return real(from, to); });
}

int ftruncate(int fd, off_t bytes) noexcept {
  REAL(ftruncate);
  return Carry(Call{Family::kTruncate, "ftruncate", fd}, [&](const Fate&) { return real(fd, bytes); });
}

int ftruncate64(int fd, off64_t bytes) noexcept {
  REAL(ftruncate64);
  return Carry(Call{Family::kTruncate, "ftruncate", fd}, [&](const Fate&) { return real(fd, bytes); });
}

int truncate(const char* path, off_t bytes) noexcept {
  REAL(truncate);
  return Carry(Call{Family::kTruncate, "truncate", -1, path}, [&](const Fate&) { return real(path, bytes); });
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  REAL(fallocate);
  return CarryAllocation("fallocate", fd, mode, offset, bytes, real);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t bytes) {
  REAL(fallocate64);
  return CarryAllocation("fallocate", fd, mode, offset, bytes, real);
}

int posix_fallocate(int fd, off_t offset, off_t bytes) {
  REAL(posix_fallocate);
  const int saved = errno;
  const int result = Carry(Call{Family::kFallocate, "posix_fallocate", fd},
                           [&](const Fate& fate) { return fate.torn ? 0 : real(fd, offset, bytes); });
  const int code = result < 0 ? errno : result;
  errno = saved;
  return code;
}

int ioctl(int fd, unsigned long request, ...) noexcept {
  REAL(ioctl);
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (!Clones(request)) return real(fd, request, argument);
  return Carry(Call{Family::kClone, "ioctl", fd}, [&](const Fate&) { return real(fd, request, argument); });
}

}  // extern "C"
