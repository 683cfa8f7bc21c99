// Files by descriptor: whole reads and writes at an offset, with errors that name the file and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/file_stamp.h"
#include "io/byte_source.h"
#include "io/descriptor.h"
#include "quantport/error.h"

namespace quantport {

// The error of the last system call, for example "can't read: No space left on device".
Error SystemError(std::string_view doing, const std::filesystem::path& path);

// Safe in several threads, but for moving it. Whether it is open is a matter of use (io/descriptor.h).
class File {
 public:
  File(File&&) = default;
  File& operator=(File&&) = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() = default;

  // Only regular files: a fifo or a device named like a shard would block or never end.
  static Result<File> OpenForReading(const std::filesystem::path& path);
  // A new file, mode 0644; an existing one is an error.
  static Result<File> Create(const std::filesystem::path& path);

  // An existing regular file to read and write; a symbolic link is refused.
  static Result<File> OpenForChange(const std::filesystem::path& path);
  // For its lock and for what else asks for a descriptor.
  static Result<File> OpenFolder(const std::filesystem::path& folder);
  // A new file without a name in the folder's file system, gone when closed. Not every file system has them.
  static Result<File> CreateUnnamed(const std::filesystem::path& directory);

  Result<uint64_t> Size() const;
  Result<FileStamp> Stamp() const;
  // What one read gives: at most out.size() bytes, none at the end of the file.
  Result<size_t> ReadSome(std::span<std::byte> out, uint64_t offset) const;
  // Fills `out` from `offset`; an end of file before that is an error.
  Status ReadAt(std::span<std::byte> out, uint64_t offset) const;
  Status WriteAt(std::span<const std::byte> data, uint64_t offset);
  Status SetSize(uint64_t bytes);
  // Reserves space for a range, so that a full disk shows before hours of copying; the file grows to hold it. A file
  // system that can't reserve gets the size only.
  Status Allocate(uint64_t offset, uint64_t bytes);
  Status Sync();
  // Begins to write what the page cache holds of a range, and waits until it is written and lets go of it. Errors are
  // told here once and not by Sync(). A file system that has no such call does nothing.
  Status StartWriting(uint64_t offset, uint64_t bytes);
  Status FinishWriting(uint64_t offset, uint64_t bytes);
  // How much of a range the page cache holds; 0 where the kernel doesn't tell.
  uint64_t CachedBytes(uint64_t offset, uint64_t bytes) const;
  // Tells the kernel that the range will be read front to back, or won't be needed again.
  void AdviseSequential() const;
  void AdviseDontNeed(uint64_t offset, uint64_t bytes) const;

  const std::filesystem::path& path() const { return descriptor_->path(); }

  // For calls that are none of the above: `call(fd)` with the descriptor, which is open meanwhile. A negative result is
  // the error "can't `doing`: " with errno's reason.
  template <typename Call>
  Status Ask(std::string_view doing, const Call& call) const {
    auto use = descriptor_->Use();
    if (!use) return std::move(use.errors());
    return call((*use)->get()) < 0 ? Status(SystemError(doing, path())) : Status();
  }
  // The same of one that changes the file.
  template <typename Call>
  Status Change(std::string_view doing, const Call& call) {
    auto use = descriptor_->Use();
    if (!use) return std::move(use.errors());
    auto status = call((*use)->get()) < 0 ? Status(SystemError(doing, path())) : Status();
    descriptor_->Changed(*use);
    return status;
  }

  // A second descriptor of the file.
  std::shared_ptr<Descriptor> AnotherDescriptor(int flags) const { return descriptor_->Another(flags); }

 private:
  explicit File(std::shared_ptr<Descriptor> descriptor) : descriptor_(std::move(descriptor)) {}

  static Result<File> OpenRegular(const std::filesystem::path& path, int flags, std::string_view doing);
  Status SyncRange(uint64_t offset, uint64_t bytes, unsigned flags);

  std::shared_ptr<Descriptor> descriptor_;
};

// The whole text of a small file of this machine. Errors: kIo, also where the file is larger than `max_bytes`.
Result<std::string> ReadTextFile(const std::filesystem::path& path, uint64_t max_bytes);

Status SyncDirectory(const std::filesystem::path& path);

}  // namespace quantport
