#include "io/output_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "io/clone.h"
#include "io/direct.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

// Whether it is the folder itself or something in it.
bool IsBelow(const fs::path& name, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), name.begin(), name.end()).first == folder.end();
}

}  // namespace

Status OutputFile::WriteAt(std::span<const std::byte> data, uint64_t offset) {
  changed_ = true;
  return DoWriteAt(data, offset);
}

Result<bool> OutputFile::WriteLarge(std::span<const std::byte> data, uint64_t offset) {
  changed_ = true;
  return DoWriteLarge(data, offset);
}

Status OutputFile::SetSize(uint64_t bytes) {
  changed_ = true;
  return DoSetSize(bytes);
}

Status OutputFile::Allocate(uint64_t offset, uint64_t bytes) {
  changed_ = true;
  return DoAllocate(offset, bytes);
}

Result<bool> OutputFile::CloneRange(const File& source, uint64_t from, uint64_t to, uint64_t bytes) {
  changed_ = true;
  return DoCloneRange(source, from, to, bytes);
}

Status OutputFile::InsertRange(uint64_t offset, uint64_t bytes) {
  changed_ = true;
  return DoInsertRange(offset, bytes);
}

Status OutputFile::CollapseRange(uint64_t offset, uint64_t bytes) {
  changed_ = true;
  return DoCollapseRange(offset, bytes);
}

Status OutputFile::CopyPermissions(const fs::path& from) {
  changed_ = true;
  return DoCopyPermissions(from);
}

Status OutputFile::Sync() {
  auto status = DoSync();
  if (status) changed_ = false;
  return status;
}

Result<OutputFile*> OutputFolder::Keep(const fs::path& name, bool create) {
  auto file = DoOpen(name, create);
  if (!file) return file.errors();
  if (create) changed_.insert(name.parent_path());
  return (open_[name] = std::move(*file)).get();
}

Result<OutputFile*> OutputFolder::Create(const fs::path& name) { return Keep(name, true); }

Result<OutputFile*> OutputFolder::Open(const fs::path& name) {
  const auto open = open_.find(name);
  return open != open_.end() ? open->second.get() : Keep(name, false);
}

Status OutputFolder::Close(OutputFile* file) {
  auto status = file->changed() ? file->Sync() : Status();
  std::erase_if(open_, [&](const auto& open) { return open.second.get() == file; });
  return status;
}

Result<bool> OutputFolder::MakeFolder(const fs::path& name, unsigned mode) {
  if (name.has_parent_path()) {
    if (auto above = MakeFolder(name.parent_path()); !above) return above;
  }
  auto made = DoMakeFolder(name, mode);
  if (made && *made && !name.empty()) changed_.insert(name.parent_path());
  return made;
}

Status OutputFolder::Rename(const fs::path& from, const fs::path& to, const std::atomic<bool>* cancel) {
  if (auto status = SyncBelow(from, cancel); !status) return status;
  if (auto status = DoRename(from, to); !status) return status;
  changed_.insert(from.parent_path());
  changed_.insert(to.parent_path());
  return {};
}

Status OutputFolder::Remove(const fs::path& name) {
  if (auto status = DoRemove(name); !status) return status;
  Forget(name);
  changed_.insert(name.parent_path());
  return {};
}

Status OutputFolder::RemoveFolder(const fs::path& name) {
  Forget(name);
  if (auto status = DoRemoveFolder(name); !status) return status;
  changed_.insert(name.parent_path());
  return {};
}

Status OutputFolder::SyncFolder(const fs::path& name) {
  auto status = DoSyncFolder(name);
  if (status) changed_.erase(name);
  return status;
}

Status OutputFolder::Sync(const std::atomic<bool>* cancel) { return SyncBelow({}, cancel); }

Status OutputFolder::SyncBelow(const fs::path& name, const std::atomic<bool>* cancel) {
  for (auto open = open_.begin(); open != open_.end();) {
    if (!IsBelow(open->first, name)) {
      ++open;
      continue;
    }
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed))
      return Error{ErrorKind::kCancelled, "stopped on request", {}, {}, {}};
    if (auto status = open->second->changed() ? open->second->Sync() : Status(); !status) return status;
    open = open_.erase(open);
  }
  while (true) {
    const auto changed =
        std::find_if(changed_.begin(), changed_.end(), [&](const fs::path& folder) { return IsBelow(folder, name); });
    if (changed == changed_.end()) return {};
    if (auto status = SyncFolder(fs::path(*changed)); !status) return status;
  }
}

void OutputFolder::Forget(const fs::path& name) {
  std::erase_if(open_, [&](const auto& open) { return IsBelow(open.first, name); });
  std::erase_if(changed_, [&](const fs::path& folder) { return IsBelow(folder, name); });
}

namespace {

class LocalFile : public OutputFile {
 public:
  explicit LocalFile(File file) : file_(std::move(file)) {}

  const fs::path& path() const override { return file_.path(); }
  Result<uint64_t> Size() const override { return file_.Size(); }
  Status ReadAt(std::span<std::byte> out, uint64_t offset) const override { return file_.ReadAt(out, offset); }
  Result<std::vector<Extent>> Extents() const override { return FileExtents(file_); }
  Result<uint64_t> BlockSize() const override { return quantport::BlockSize(file_); }
  Status StartWriting(uint64_t offset, uint64_t bytes) override { return file_.StartWriting(offset, bytes); }
  Status FinishWriting(uint64_t offset, uint64_t bytes) override { return file_.FinishWriting(offset, bytes); }

 private:
  Status DoWriteAt(std::span<const std::byte> data, uint64_t offset) override { return file_.WriteAt(data, offset); }

  Result<bool> DoWriteLarge(std::span<const std::byte> data, uint64_t offset) override {
    const uint64_t whole = data.size() / kDirectBlock * kDirectBlock;
    if (!direct_.usable() || whole == 0) {
      if (auto status = file_.WriteAt(data, offset); !status) return status.errors();
      return true;
    }
    if (auto status = direct_.WriteBlocks(data.first(whole), offset); !status) return status.errors();
    if (auto status = file_.WriteAt(data.subspan(whole), offset + whole); !status) return status.errors();
    return !direct_.usable();
  }

  Status DoSetSize(uint64_t bytes) override { return file_.SetSize(bytes); }
  Status DoAllocate(uint64_t offset, uint64_t bytes) override { return file_.Allocate(offset, bytes); }

  Result<bool> DoCloneRange(const File& source, uint64_t from, uint64_t to, uint64_t bytes) override {
    return quantport::CloneRange(source, from, &file_, to, bytes);
  }

  Status DoInsertRange(uint64_t offset, uint64_t bytes) override {
    return quantport::InsertRange(&file_, offset, bytes);
  }

  Status DoCollapseRange(uint64_t offset, uint64_t bytes) override {
    return quantport::CollapseRange(&file_, offset, bytes);
  }

  Status DoCopyPermissions(const fs::path& from) override {
    struct stat info = {};
    if (::stat(from.c_str(), &info) != 0) return SystemError("stat", from);
    // Only root gives files away. Before the mode, since it clears the set-user-ID bit.
    auto status = file_.Change("set the owner", [&](int fd) {
      return ::fchown(fd, info.st_uid, info.st_gid) == 0 || errno == EPERM ? 0 : -1;
    });
    if (!status) return status;
    return file_.Change("set the permissions", [&](int fd) { return ::fchmod(fd, info.st_mode & 07777); });
  }

  Status DoSync() override { return file_.Sync(); }

  File file_;
  DirectWriter direct_{&file_};
};

class LocalFolder : public OutputFolder {
 public:
  explicit LocalFolder(const fs::path& path) : OutputFolder(path) {}

  Result<bool> CanClone(const ByteSource& source) const override { return quantport::CanClone(source, path()); }
  bool CanInsertRange(uint64_t block_bytes) const override { return quantport::CanInsertRange(path(), block_bytes); }

  Result<std::vector<Extent>> OwnExtents(const fs::path& name) const override {
    auto file = File::OpenForReading(path() / name);
    if (!file) return file.errors();
    auto own = HasPlacesOfItsOwn(*file);
    if (!own) return own.errors();
    return *own ? FileExtents(*file) : std::vector<Extent>();
  }

 private:
  Result<std::unique_ptr<OutputFile>> DoOpen(const fs::path& name, bool create) override {
    auto file = create ? File::Create(path() / name) : File::OpenForChange(path() / name);
    if (!file) return file.errors();
    return std::make_unique<LocalFile>(std::move(*file));
  }

  Result<bool> DoMakeFolder(const fs::path& name, unsigned mode) override {
    return name.empty() ? MakeThis(path()) : Make(path() / name, mode);
  }

  static Result<bool> Make(const fs::path& folder, unsigned mode) {
    if (::mkdir(folder.c_str(), mode) == 0) return true;
    struct stat info = {};
    const int reason = errno;
    if (reason == EEXIST && ::stat(folder.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return false;
    errno = reason;
    return SystemError("create the folder", folder);
  }

  // What is above has no object that would sync it later.
  static Result<bool> MakeThis(const fs::path& folder) {
    std::error_code code;
    if (fs::is_directory(folder, code)) return false;
    if (folder.has_relative_path()) {
      if (auto above = MakeThis(folder.parent_path()); !above) return above;
    }
    auto made = Make(folder, 0755);
    if (!made) return made;
    if (auto status = SyncDirectory(folder.parent_path()); !status) return status.errors();
    return made;
  }

  Status DoRename(const fs::path& from, const fs::path& to) override {
    if (std::rename((path() / from).c_str(), (path() / to).c_str()) != 0)
      return SystemError("rename to its place", path() / to);
    return {};
  }

  Status DoRemove(const fs::path& name) override {
    if (::unlink((path() / name).c_str()) != 0 && errno != ENOENT) return SystemError("remove", path() / name);
    return {};
  }

  Status DoRemoveFolder(const fs::path& name) override {
    std::error_code code;
    fs::remove_all(path() / name, code);
    if (!code) return {};
    return Error{ErrorKind::kIo, "can't remove: " + code.message(), (path() / name).string(), {}, {}};
  }

  Status DoSyncFolder(const fs::path& name) override { return SyncDirectory(name.empty() ? path() : path() / name); }
};

constexpr size_t kCopyBytes = 1 << 20;

}  // namespace

std::unique_ptr<OutputFolder> OpenOutputFolder(const fs::path& path) { return std::make_unique<LocalFolder>(path); }

Status WriteText(OutputFolder* folder, const fs::path& name, std::string_view text) {
  auto file = folder->Create(name);
  if (!file) return file.errors();
  return (*file)->WriteAt(std::as_bytes(std::span(text)), 0);
}

Status CopyIn(OutputFolder* folder, const ByteSource& from, const fs::path& name, const std::atomic<bool>* cancel) {
  auto target = folder->Create(name);
  if (!target) return target.errors();
  auto size = from.Size();
  if (!size) return size.errors();
  std::vector<std::byte> buffer(std::min<uint64_t>(*size, kCopyBytes));
  for (uint64_t offset = 0; offset < *size; offset += buffer.size()) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed))
      return Error{ErrorKind::kCancelled, "stopped on request", {}, {}, {}};
    const std::span<std::byte> chunk(buffer.data(), std::min<uint64_t>(buffer.size(), *size - offset));
    if (auto status = from.ReadAt(chunk, offset); !status) return status;
    if (auto status = (*target)->WriteAt(chunk, offset); !status) return status;
  }
  return {};
}

}  // namespace quantport
