#include "io/descriptor.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <utility>

#include "io/file.h"
#include "io/retry.h"

namespace quantport {

namespace fs = std::filesystem;

OpenDescriptor::~OpenDescriptor() { ::close(fd_); }

// All that can be closed, by the order in which they were opened. Takes a descriptor's mutex only while it has not its
// own, which a descriptor may take while it has that one.
class OpenDescriptors {
 public:
  static OpenDescriptors& All() {
    static OpenDescriptors& all = *new OpenDescriptors;  // never destroyed: files may be closed later
    return all;
  }

  // The ticket to remove it by.
  uint64_t Add(std::weak_ptr<Descriptor> descriptor) {
    const std::lock_guard lock(mutex_);
    open_.emplace(++last_ticket_, std::move(descriptor));
    return last_ticket_;
  }

  void Remove(uint64_t ticket) {
    const std::lock_guard lock(mutex_);
    open_.erase(ticket);
  }

  void MakeRoom() {
    rlimit limit = {};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    while (CloseOldest(std::max<size_t>(1, limit.rlim_cur / 2))) {
    }
  }

  // Where there are at least so many. False where there are not.
  bool CloseOldest(size_t least = 1) {
    std::shared_ptr<Descriptor> oldest;
    {
      const std::lock_guard lock(mutex_);
      if (open_.size() < least) return false;
      oldest = open_.begin()->second.lock();
      open_.erase(open_.begin());
    }
    if (oldest != nullptr) oldest->Close();
    return true;
  }

 private:
  std::mutex mutex_;  // guards what follows
  std::map<uint64_t, std::weak_ptr<Descriptor>> open_;
  uint64_t last_ticket_ = 0;
};

Result<std::shared_ptr<Descriptor>> Descriptor::Make(const fs::path& path, int flags, std::string_view doing,
                                                     Lifetime lifetime) {
  const std::shared_ptr<Descriptor> made(new Descriptor(path, flags & ~(O_CREAT | O_EXCL), lifetime));
  if (auto open = made->OpenNow(flags, doing); !open) return open.errors();
  return made;
}

Result<std::shared_ptr<Descriptor>> Descriptor::Open(const fs::path& path, int flags, std::string_view doing) {
  return Make(path, flags, doing, Lifetime::kWhileUsed);
}

Result<std::shared_ptr<Descriptor>> Descriptor::OpenForGood(const fs::path& path, int flags, std::string_view doing) {
  return Make(path, flags, doing, Lifetime::kForGood);
}

std::shared_ptr<Descriptor> Descriptor::Another(int flags) const {
  std::shared_ptr<Descriptor> other(new Descriptor(path_, flags, Lifetime::kWhileUsed));
  const std::lock_guard lock(mutex_);
  other->identity_ = identity_;
  return other;
}

Descriptor::~Descriptor() { OpenDescriptors::All().Remove(ticket_); }

DescriptorUse Descriptor::Opened() const {
  const std::lock_guard lock(mutex_);
  return open_;
}

Result<DescriptorUse> Descriptor::Use() {
  if (auto open = Opened()) return open;
  return OpenNow(flags_, "open");
}

Result<DescriptorUse> Descriptor::OpenNow(int flags, std::string_view doing) {
  OpenDescriptors& all = OpenDescriptors::All();
  all.MakeRoom();
  int fd = -1;
  do {
    fd = Retry([&] { return ::open(path_.c_str(), flags | O_CLOEXEC, 0644); });
    // The limit is the whole process'.
  } while (fd < 0 && (errno == EMFILE || errno == ENFILE) && all.CloseOldest());
  if (fd < 0) return SystemError(doing, path_);
  auto opened = std::make_shared<const OpenDescriptor>(fd);
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return SystemError("stat", path_);
  const Identity identity{info.st_dev, info.st_ino};
  const std::lock_guard lock(mutex_);
  if (open_ != nullptr) return open_;  // by another thread
  if (identity_.value_or(identity) != identity) {
    return Error{ErrorKind::kIo,
                 "another file has taken its place",
                 path_.string(),
                 {},
                 "run again when nothing writes to the folder"};
  }
  identity_ = identity;
  open_ = std::move(opened);
  if (sequential_) (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  if (lifetime_ == Lifetime::kWhileUsed) ticket_ = all.Add(weak_from_this());
  return open_;
}

void Descriptor::SyncForClosing(const DescriptorUse& use) {
  if ((flags_ & O_ACCMODE) == O_RDONLY) return;
  if (Retry([&] { return ::fsync(use->get()); }) != 0 && !lost_) lost_ = SystemError("sync", path_);
}

void Descriptor::Close() {
  const std::lock_guard lock(mutex_);
  if (open_ != nullptr) SyncForClosing(open_);
  open_.reset();
}

void Descriptor::Changed(const DescriptorUse& use) {
  const std::lock_guard lock(mutex_);
  if (open_ != use) SyncForClosing(use);
}

Status Descriptor::Sync() {
  const std::lock_guard lock(mutex_);
  // Where it is closed, closing has synced it.
  if (open_ != nullptr && Retry([&] { return ::fsync(open_->get()); }) != 0) return SystemError("sync", path_);
  if (lost_) return *std::exchange(lost_, std::nullopt);
  return {};
}

void Descriptor::AdviseSequential() {
  const std::lock_guard lock(mutex_);
  sequential_ = true;
  if (open_ != nullptr) (void)::posix_fadvise(open_->get(), 0, 0, POSIX_FADV_SEQUENTIAL);
}

}  // namespace quantport
