#include "support/losing_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace quantport::test {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kExtentPages = 3;  // of a file that was there before

uint64_t PageCount(uint64_t bytes) { return (bytes + kPage - 1) / kPage; }

std::vector<Extent> ExtentsOf(const DiskFile& file) {
  std::vector<Extent> extents;
  for (size_t i = 0; i < file.pages.size(); ++i) {
    if (file.pages[i] == 0) continue;
    const uint64_t physical = file.pages[i] * kPage;
    if (!extents.empty() && extents.back().logical + extents.back().bytes == i * kPage &&
        extents.back().physical + extents.back().bytes == physical) {
      extents.back().bytes += kPage;
    } else {
      extents.push_back({i * kPage, physical, kPage});
    }
  }
  return extents;
}

// The pages at which a shift from `first` on may stop: where an extent begins, and the end.
std::vector<uint64_t> Stops(const DiskFile& file, uint64_t first) {
  std::vector<uint64_t> stops;
  for (const Extent& extent : ExtentsOf(file)) {
    if (extent.logical / kPage > first) stops.push_back(extent.logical / kPage);
  }
  stops.push_back(file.pages.size());
  return stops;
}

// Whole pages from `at` on go `count` further, with nothing between.
void InsertPages(DiskFile* file, uint64_t at, uint64_t count) {
  file->bytes.resize(std::max<uint64_t>(file->bytes.size(), at * kPage));
  file->bytes.insert(at * kPage, count * kPage, '\0');
  file->pages.resize(std::max<uint64_t>(file->pages.size(), at));
  file->pages.insert(file->pages.begin() + static_cast<ptrdiff_t>(at), count, 0);
}

void CollapsePages(DiskFile* file, uint64_t at, uint64_t count) {
  file->bytes.erase(at * kPage, count * kPage);
  file->pages.erase(file->pages.begin() + static_cast<ptrdiff_t>(at),
                    file->pages.begin() + static_cast<ptrdiff_t>(std::min<uint64_t>(at + count, file->pages.size())));
}

// `torn`: after so many extents.
void Insert(DiskFile* file, uint64_t at, uint64_t count, std::optional<size_t> torn) {
  if (torn) {
    const std::vector<uint64_t> stops = Stops(*file, at);
    // The last extent moves first.
    at = stops[stops.size() - 1 - *torn % stops.size()];
  }
  if (at == file->pages.size()) return file->bytes.resize(file->bytes.size() + count * kPage);
  InsertPages(file, at, count);
}

void Collapse(DiskFile* file, uint64_t at, uint64_t count, std::optional<size_t> torn) {
  if (!torn) return CollapsePages(file, at, count);
  const std::vector<uint64_t> stops = Stops(*file, at + count - 1);
  const uint64_t stop = stops[*torn % stops.size()];
  const uint64_t size = file->bytes.size();
  CollapsePages(file, at, count);
  if (stop >= at + count && stop < file->pages.size() + count) {
    InsertPages(file, stop - count, count);
  } else {
    file->bytes.resize(size);  // all have moved, but for the size
  }
}

void ApplyTo(DiskFile* file, const DiskChange& change, std::optional<size_t> torn) {
  switch (change.kind) {
    case DiskChange::Kind::kSize:
      file->bytes.resize(change.bytes);
      file->pages.resize(PageCount(change.bytes));
      return;
    case DiskChange::Kind::kWrite: {
      const uint64_t end = change.offset + change.data.size();
      file->bytes.resize(std::max<uint64_t>(file->bytes.size(), end));
      file->bytes.replace(change.offset, change.data.size(), change.data);
      file->pages.resize(std::max<uint64_t>(file->pages.size(), PageCount(file->bytes.size())));
      for (size_t i = 0; i < change.pages.size(); ++i) {
        uint64_t& page = file->pages[change.offset / kPage + i];
        if (page == 0) page = change.pages[i];
      }
      return;
    }
    case DiskChange::Kind::kInsert:
      return Insert(file, change.offset / kPage, change.bytes / kPage, torn);
    case DiskChange::Kind::kCollapse:
      return Collapse(file, change.offset / kPage, change.bytes / kPage, torn);
    case DiskChange::Kind::kMode:
      file->mode = static_cast<unsigned>(change.bytes);
      return;
    default:
      return;
  }
}

void Apply(DiskState* state, const DiskChange& change, std::optional<size_t> torn) {
  if (change.kind == DiskChange::Kind::kSyncFile || change.kind == DiskChange::Kind::kSyncFolder) return;
  if (change.kind != DiskChange::Kind::kName) return ApplyTo(&state->files[change.file], change, torn);
  if (change.from) {
    auto& names = state->folders[change.from->first];
    const auto it = names.find(change.from->second);
    if (it != names.end() && it->second == change.file) names.erase(it);
  }
  if (!change.to) return;
  if (change.is_folder) state->folders[change.file];
  state->folders[change.to->first][change.to->second] = change.file;
}

void AddVisible(const DiskState& state, uint64_t folder, const std::string& path,
                std::map<std::string, std::string>* out) {
  const auto names = state.folders.find(folder);
  if (names == state.folders.end()) return;
  for (const auto& [name, number] : names->second) {
    if (name.starts_with(".")) continue;
    if (state.folders.contains(number)) {
      AddVisible(state, number, path + name + "/", out);
    } else {
      const auto file = state.files.find(number);
      (*out)[path + name] = file == state.files.end() ? "" : file->second.bytes;
    }
  }
}

void WriteOut(const DiskState& state, uint64_t folder, const fs::path& path) {
  const auto names = state.folders.find(folder);
  if (names == state.folders.end()) return;
  for (const auto& [name, number] : names->second) {
    if (state.folders.contains(number)) {
      fs::create_directory(path / name);
      WriteOut(state, number, path / name);
    } else {
      const auto file = state.files.find(number);
      WriteFile(path / name, file == state.files.end() ? "" : file->second.bytes);
      if (file != state.files.end()) ::chmod((path / name).c_str(), file->second.mode);
    }
  }
}

Error Killed() { return Error{ErrorKind::kIo, "the process was killed", {}, {}, {}}; }

}  // namespace

std::map<std::string, std::string> DiskState::Visible() const {
  std::map<std::string, std::string> out;
  AddVisible(*this, 0, "", &out);
  return out;
}

std::string DiskState::Key() const {
  std::string key;
  for (const auto& [folder, names] : folders) {
    key += std::to_string(folder) + "{";
    for (const auto& [name, number] : names) key += name + "=" + std::to_string(number) + ",";
  }
  for (const auto& [number, file] : files) {
    key += std::to_string(number) + ":" + std::to_string(file.mode) + ":" + file.bytes + ":";
    for (const uint64_t page : file.pages) key += std::to_string(page) + ",";
  }
  return key;
}

Disk::Disk(const fs::path& folder) {
  before_.folders[0];
  std::map<fs::path, uint64_t> numbers = {{folder, 0}};
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const uint64_t number = NewNumber();
    before_.folders[numbers.at(entry.path().parent_path())][entry.path().filename().string()] = number;
    if (entry.is_directory()) {
      numbers[entry.path()] = number;
      before_.folders[number];
      continue;
    }
    DiskFile file{ReadFile(entry.path()), {}, 0644};
    while (file.pages.size() < PageCount(file.bytes.size())) {
      for (const uint64_t page : NewPages(std::min(kExtentPages, PageCount(file.bytes.size()) - file.pages.size())))
        file.pages.push_back(page);
    }
    before_.files[number] = std::move(file);
  }
  now_ = before_;
}

void Disk::Number() {
  for (const auto& [number, names] : now_.folders) {
    next_number_ = std::max(next_number_, number + 1);
    for (const auto& [name, child] : names) next_number_ = std::max(next_number_, child + 1);
  }
  for (const auto& [number, file] : now_.files) {
    next_number_ = std::max(next_number_, number + 1);
    for (const uint64_t page : file.pages) next_page_ = std::max(next_page_, page + 2);
  }
}

std::vector<uint64_t> Disk::NewPages(uint64_t count) {
  std::vector<uint64_t> pages(count);
  for (uint64_t& page : pages) page = next_page_++;
  ++next_page_;  // no two allocations touch
  return pages;
}

void Disk::Add(DiskChange change) {
  Apply(&now_, change, std::nullopt);
  changes_.push_back(std::move(change));
}

std::vector<size_t> Disk::LossPoints() const {
  std::vector<size_t> points;
  for (size_t i = 0; i < changes_.size(); ++i) {
    const DiskChange::Kind kind = changes_[i].kind;
    if (kind == DiskChange::Kind::kSyncFile || kind == DiskChange::Kind::kSyncFolder) points.push_back(i);
  }
  points.push_back(changes_.size());
  return points;
}

std::vector<bool> Disk::Covered(size_t count) const {
  std::vector<bool> covered(count);
  std::map<uint64_t, bool> synced;
  for (size_t i = count; i-- > 0;) {
    const DiskChange& change = changes_[i];
    if (change.kind == DiskChange::Kind::kSyncFile || change.kind == DiskChange::Kind::kSyncFolder) {
      synced[change.file] = true;
      covered[i] = true;
    } else if (change.kind == DiskChange::Kind::kName) {
      covered[i] = synced[change.to ? change.to->first : change.from->first];
    } else {
      covered[i] = synced[change.file];
    }
  }
  return covered;
}

size_t Disk::Unsynced(size_t count) const {
  const std::vector<bool> covered = Covered(count);
  return static_cast<size_t>(std::count(covered.begin(), covered.end(), false));
}

DiskState Disk::Left(size_t count, const Survives& survives, std::optional<size_t> torn) const {
  const std::vector<bool> covered = Covered(count);
  DiskState state = before_;
  size_t unsynced = 0;
  for (size_t i = 0; i < count; ++i) {
    if (covered[i]) {
      Apply(&state, changes_[i], std::nullopt);
    } else if (survives(unsynced++)) {
      Apply(&state, changes_[i], torn);
    }
  }
  return state;
}

// The file that a run sees, in step with what the disk knows of it.
class LosingFile : public OutputFile {
 public:
  LosingFile(LosingFolder* folder, fs::path path, uint64_t number)
      : folder_(folder), path_(std::move(path)), number_(number) {}

  const fs::path& path() const override { return path_; }
  Result<uint64_t> Size() const override {
    const std::lock_guard lock(folder_->mutex_);
    return uint64_t{Now().bytes.size()};
  }
  Status ReadAt(std::span<std::byte> out, uint64_t offset) const override {
    auto file = File::OpenForReading(path_);
    return file ? file->ReadAt(out, offset) : Status(file.errors());
  }
  Result<std::vector<Extent>> Extents() const override {
    const std::lock_guard lock(folder_->mutex_);
    return ExtentsOf(Now());
  }
  Result<uint64_t> BlockSize() const override { return kPage; }
  Status StartWriting(uint64_t, uint64_t) override { return {}; }
  Status FinishWriting(uint64_t, uint64_t) override { return {}; }

 private:
  // Page by page, as each may be lost by itself.
  Status DoWriteAt(std::span<const std::byte> data, uint64_t offset) override {
    while (!data.empty()) {
      const uint64_t count = std::min<uint64_t>(data.size(), kPage - offset % kPage);
      DiskChange change{DiskChange::Kind::kWrite, number_, offset};
      change.data.assign(reinterpret_cast<const char*>(data.data()), count);
      if (auto status = Put(std::move(change)); !status) return status;
      data = data.subspan(count);
      offset += count;
    }
    return {};
  }

  Result<bool> DoWriteLarge(std::span<const std::byte> data, uint64_t offset) override {
    if (auto status = DoWriteAt(data, offset); !status) return status.errors();
    return false;
  }

  Status DoSetSize(uint64_t bytes) override { return Put({DiskChange::Kind::kSize, number_, 0, bytes}); }

  Status DoAllocate(uint64_t offset, uint64_t bytes) override {
    auto size = Size();
    return *size < offset + bytes ? DoSetSize(offset + bytes) : Status();
  }

  Result<bool> DoCloneRange(const File& source, uint64_t from, uint64_t to, uint64_t bytes) override {
    if (!folder_->abilities_.clone) return false;
    std::vector<std::byte> data(bytes);
    if (auto status = source.ReadAt(data, from); !status) return status.errors();
    if (auto status = DoWriteAt(data, to); !status) return status.errors();
    return true;
  }

  Status DoInsertRange(uint64_t offset, uint64_t bytes) override {
    return Put({DiskChange::Kind::kInsert, number_, offset, bytes});
  }

  Status DoCollapseRange(uint64_t offset, uint64_t bytes) override {
    return Put({DiskChange::Kind::kCollapse, number_, offset, bytes});
  }

  Status DoCopyPermissions(const fs::path& from) override {
    struct stat info = {};
    if (::stat(from.c_str(), &info) != 0) return SystemError("stat", from);
    return Put({DiskChange::Kind::kMode, number_, 0, info.st_mode & 07777});
  }

  Status DoSync() override { return folder_->SyncOf(DiskChange::Kind::kSyncFile, number_); }

  Status Put(DiskChange change) { return folder_->Put(path_, number_, std::move(change)); }

  const DiskFile& Now() const { return folder_->disk_->now().files.at(number_); }

  LosingFolder* const folder_;
  const fs::path path_;
  const uint64_t number_;
};

LosingFolder::LosingFolder(const fs::path& path, Disk* disk, DiskAbilities abilities)
    : OutputFolder(path), disk_(disk), abilities_(abilities) {
  WriteOut(disk->now(), 0, path);
}

Result<bool> LosingFolder::CanClone(const ByteSource&) const { return abilities_.clone; }

Result<std::vector<Extent>> LosingFolder::OwnExtents(const fs::path& name) const {
  const std::lock_guard lock(mutex_);
  return ExtentsOf(disk_->now().files.at(NumberOf(name)));
}

Status LosingFolder::Begin() {
  if (left_ == 0) return Killed();
  --left_;
  return {};
}

Status LosingFolder::SyncOf(DiskChange::Kind kind, uint64_t number) {
  const std::lock_guard lock(mutex_);
  if (auto status = Begin(); !status) return status;
  if (syncs_++ != skipped_) disk_->Add({kind, number});
  return {};
}

Status LosingFolder::Put(const fs::path& path, uint64_t file, DiskChange change) {
  const std::lock_guard lock(mutex_);
  if (auto status = Begin(); !status) return status;
  if (change.kind == DiskChange::Kind::kWrite)
    change.pages = disk_->NewPages(PageCount(change.offset % kPage + change.data.size()));
  const DiskChange::Kind kind = change.kind;
  const std::string data = change.data;
  const uint64_t offset = change.offset;
  disk_->Add(std::move(change));
  const DiskFile& now = disk_->now().files.at(file);
  if (kind == DiskChange::Kind::kMode) {
    ::chmod(path.c_str(), now.mode);
    return {};
  }
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return SystemError("open", path);
  bool done = ::ftruncate(fd, static_cast<off_t>(now.bytes.size())) == 0;
  const std::string& bytes = kind == DiskChange::Kind::kWrite ? data : now.bytes;
  const uint64_t at = kind == DiskChange::Kind::kWrite ? offset : 0;
  if (kind != DiskChange::Kind::kSize)
    done &= ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at)) == static_cast<ssize_t>(bytes.size());
  ::close(fd);
  return done ? Status() : SystemError("write", path);
}

void LosingFolder::AddName(uint64_t number, bool is_folder, const fs::path* from, const fs::path* to) {
  DiskChange change{DiskChange::Kind::kName, number};
  change.is_folder = is_folder;
  if (from != nullptr) change.from = EntryOf(*from);
  if (to != nullptr) change.to = EntryOf(*to);
  disk_->Add(std::move(change));
}

std::pair<uint64_t, std::string> LosingFolder::EntryOf(const fs::path& name) const {
  return {NumberOf(name.parent_path()), name.filename().string()};
}

uint64_t LosingFolder::NumberOf(const fs::path& name) const {
  if (name.empty()) return 0;
  const auto [folder, last] = EntryOf(name);
  return disk_->now().folders.at(folder).at(last);
}

Result<std::unique_ptr<OutputFile>> LosingFolder::DoOpen(const fs::path& name, bool create) {
  const std::lock_guard lock(mutex_);
  if (!create) {
    if (auto file = File::OpenForChange(path() / name); !file) return file.errors();
    return std::make_unique<LosingFile>(this, path() / name, NumberOf(name));
  }
  if (auto status = Begin(); !status) return status.errors();
  if (auto file = File::Create(path() / name); !file) return file.errors();
  const uint64_t number = disk_->NewNumber();
  AddName(number, false, nullptr, &name);
  // So that a file whose data is lost is an empty one.
  disk_->Add({DiskChange::Kind::kSize, number});
  return std::make_unique<LosingFile>(this, path() / name, number);
}

Result<bool> LosingFolder::DoMakeFolder(const fs::path& name, unsigned) {
  const std::lock_guard lock(mutex_);
  if (fs::is_directory(path() / name)) return false;
  if (auto status = Begin(); !status) return status.errors();
  fs::create_directory(path() / name);
  AddName(disk_->NewNumber(), true, nullptr, &name);
  return true;
}

Status LosingFolder::DoRename(const fs::path& from, const fs::path& to) {
  const std::lock_guard lock(mutex_);
  if (auto status = Begin(); !status) return status;
  std::error_code code;
  fs::rename(path() / from, path() / to, code);
  if (code) return Error{ErrorKind::kIo, "can't rename: " + code.message(), (path() / to).string(), {}, {}};
  const uint64_t number = NumberOf(from);
  AddName(number, disk_->now().folders.contains(number), &from, &to);
  return {};
}

Status LosingFolder::DoRemove(const fs::path& name) {
  const std::lock_guard lock(mutex_);
  if (auto status = Begin(); !status) return status;
  if (!fs::remove(path() / name)) return {};
  AddName(NumberOf(name), false, &name, nullptr);
  return {};
}

// Name by name, the deepest first.
Status LosingFolder::DoRemoveFolder(const fs::path& name) {
  if (!fs::is_directory(path() / name)) return {};
  std::vector<fs::path> names;
  for (const auto& entry : fs::directory_iterator(path() / name)) names.push_back(name / entry.path().filename());
  for (const fs::path& below : names) {
    auto status = fs::is_directory(path() / below) ? DoRemoveFolder(below) : DoRemove(below);
    if (!status) return status;
  }
  return DoRemove(name);
}

Status LosingFolder::DoSyncFolder(const fs::path& name) {
  uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!fs::is_directory(path() / name)) return SystemError("open", path() / name);
    number = NumberOf(name);
  }
  return SyncOf(DiskChange::Kind::kSyncFolder, number);
}

}  // namespace quantport::test
