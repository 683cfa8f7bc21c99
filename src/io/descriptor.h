// Descriptors of files, of which only a bounded number is open at a time.
//
// Models have 600 shards and more, both sides of a copy are in use at once, and many systems allow a process 1024 open
// files or 256. So at most half of what the process may have stays open: whoever opens one more closes those opened
// longest ago. They open again by their path when they are used next.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>

#include "quantport/error.h"

namespace quantport {

// An open descriptor, for as long as somebody has it.
class OpenDescriptor {
 public:
  explicit OpenDescriptor(int fd) : fd_(fd) {}
  OpenDescriptor(const OpenDescriptor&) = delete;
  OpenDescriptor& operator=(const OpenDescriptor&) = delete;
  ~OpenDescriptor();

  int get() const { return fd_; }

 private:
  const int fd_;
};

using DescriptorUse = std::shared_ptr<const OpenDescriptor>;

// Safe in several threads.
class Descriptor : public std::enable_shared_from_this<Descriptor> {
 public:
  // Opens the file; `flags` as of open(2), and `doing` what the error says couldn't be done.
  static Result<std::shared_ptr<Descriptor>> Open(const std::filesystem::path& path, int flags, std::string_view doing);
  // The same of what opening again would not give back: a lock, a file without a name. It stays open.
  static Result<std::shared_ptr<Descriptor>> OpenForGood(const std::filesystem::path& path, int flags,
                                                         std::string_view doing);
  // Another one of the same file, which is opened at its first use.
  std::shared_ptr<Descriptor> Another(int flags) const;
  ~Descriptor();

  // The descriptor, open until the result is gone. Errors: kIo, also where another file has the path by now.
  Result<DescriptorUse> Use();

  // fsync(2), of everything that was changed before. One that changes files is also synced before it is closed, since
  // errors of writing back are only told to descriptors that were open; they are told by the next Sync. Errors: kIo.
  Status Sync();
  // Whoever changed the file through `use` says so: it may have been closed meanwhile, but for this use.
  void Changed(const DescriptorUse& use);

  // The kernel is told at each opening that the file will be read front to back.
  void AdviseSequential();

  const std::filesystem::path& path() const { return path_; }

 private:
  friend class OpenDescriptors;

  enum class Lifetime : bool { kWhileUsed, kForGood };

  // What a path must name whenever it is opened.
  struct Identity {
    uint64_t device = 0;
    uint64_t inode = 0;
    friend bool operator==(const Identity&, const Identity&) = default;
  };

  Descriptor(std::filesystem::path path, int flags, Lifetime lifetime)
      : path_(std::move(path)), flags_(flags), lifetime_(lifetime) {}

  static Result<std::shared_ptr<Descriptor>> Make(const std::filesystem::path& path, int flags, std::string_view doing,
                                                  Lifetime lifetime);
  Result<DescriptorUse> OpenNow(int flags, std::string_view doing);
  DescriptorUse Opened() const;
  void SyncForClosing(const DescriptorUse& use);
  void Close();

  const std::filesystem::path path_;
  const int flags_;  // once it is there
  const Lifetime lifetime_;
  mutable std::mutex mutex_;  // guards what follows
  std::optional<Identity> identity_;
  DescriptorUse open_;
  uint64_t ticket_ = 0;  // of its last opening
  bool sequential_ = false;
  std::optional<Error> lost_;  // what a sync before closing told
};

}  // namespace quantport
