#include "support/watched_storage.h"

#include <algorithm>

namespace quantport::test {

Status WatchedStorage::Log::Ask(const std::string& address) {
  const std::lock_guard lock(mutex);
  if (++asked != faults.fail_at) return {};
  failed = address;
  return Error{ErrorKind::kIo, "can't read: Input/output error", address, {}, {}};
}

class WatchedStorage::WatchedSource : public ByteSource {
 public:
  WatchedSource(std::unique_ptr<const ByteSource> source, std::shared_ptr<Log> log)
      : ByteSource(source->address()), source_(std::move(source)), log_(std::move(log)) {}

  Result<FileStamp> Stamp() const override {
    if (auto status = log_->Ask(address()); !status) return status.errors();
    return source_->Stamp();
  }

 private:
  Result<size_t> ReadSome(std::span<std::byte> out, uint64_t offset) const override {
    if (auto status = log_->Ask(address()); !status) return status.errors();
    auto size = source_->Size();
    if (!size) return size.errors();
    const Faults& faults = log_->faults;
    const bool cut = !faults.cut_file.empty() && address().find(faults.cut_file) != std::string::npos;
    const uint64_t end = cut ? std::min(*size, faults.cut_at) : *size;
    const uint64_t there = end - std::min(end, offset);
    const auto count = static_cast<size_t>(std::min<uint64_t>({out.size(), there, faults.read_bytes}));
    if (auto status = source_->ReadAt(out.first(count), offset); !status) return status.errors();
    const std::lock_guard lock(log_->mutex);
    log_->reads.push_back({address(), offset, count});
    return count;
  }

  std::unique_ptr<const ByteSource> source_;
  std::shared_ptr<Log> log_;
};

class WatchedStorage::WatchedFolder : public Folder {
 public:
  WatchedFolder(std::shared_ptr<const Folder> folder, std::shared_ptr<Log> log)
      : Folder(folder->address()), folder_(std::move(folder)), log_(std::move(log)) {}

  std::string AddressOf(std::string_view file) const override { return folder_->AddressOf(file); }
  bool Has(std::string_view file) const override { return folder_->Has(file); }

  Result<std::vector<std::string>> List(bool follow_links) const override {
    if (auto status = log_->Ask(address()); !status) return status.errors();
    return folder_->List(follow_links);
  }
  bool LeadsOutside(std::string_view file) const override { return folder_->LeadsOutside(file); }

  Result<std::unique_ptr<const ByteSource>> Open(std::string_view file) const override {
    if (auto status = log_->Ask(AddressOf(file)); !status) return status.errors();
    return Watch(folder_->Open(file), log_);
  }

 private:
  std::shared_ptr<const Folder> folder_;
  std::shared_ptr<Log> log_;
};

Result<std::unique_ptr<const ByteSource>> WatchedStorage::Watch(Result<std::unique_ptr<const ByteSource>> source,
                                                                const std::shared_ptr<Log>& log) {
  if (!source) return source;
  return std::unique_ptr<const ByteSource>(std::make_unique<WatchedSource>(std::move(*source), log));
}

Result<std::shared_ptr<const Folder>> WatchedStorage::OpenFolder(const std::string& address) const {
  if (auto status = log_->Ask(address); !status) return status.errors();
  auto folder = under_.OpenFolder(address);
  if (!folder) return folder;
  return std::shared_ptr<const Folder>(std::make_shared<WatchedFolder>(std::move(*folder), log_));
}

Result<std::unique_ptr<const ByteSource>> WatchedStorage::OpenFile(const std::string& address) const {
  if (auto status = log_->Ask(address); !status) return status.errors();
  return Watch(under_.OpenFile(address), log_);
}

std::vector<ReadRecord> WatchedStorage::reads() const {
  const std::lock_guard lock(log_->mutex);
  return log_->reads;
}

uint64_t WatchedStorage::asked() const {
  const std::lock_guard lock(log_->mutex);
  return log_->asked;
}

std::optional<std::string> WatchedStorage::failed() const {
  const std::lock_guard lock(log_->mutex);
  return log_->failed;
}

}  // namespace quantport::test
