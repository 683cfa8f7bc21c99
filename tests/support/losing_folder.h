// A folder that can lose power: it knows what was synced, and makes what a disk may hold afterwards.
//
// The changes of a run are kept in their order. What a sync covers is on the disk for certain; of all others each may
// be there or not, by itself: a name, a size, a page of a write, a shift of blocks, which may also have stopped between
// two extents. A rename is atomic, and certain once the folder of the new name is synced. The run itself sees real
// files, so that everything else of the program reads them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "io/output_folder.h"
#include "support/checkpoint_builder.h"

namespace quantport::test {

inline constexpr uint64_t kPage = 4096;

// A file's bytes, and where each of its pages lies on the device; 0: nowhere.
struct DiskFile {
  std::string bytes;
  std::vector<uint64_t> pages;
  unsigned mode = 0644;
};

// What a disk holds. Number 0 is the folder itself.
struct DiskState {
  std::map<uint64_t, std::map<std::string, uint64_t>> folders;  // number -> name -> number of a file or folder
  std::map<uint64_t, DiskFile> files;

  // Relative path -> bytes of every file; hidden ones are left out.
  std::map<std::string, std::string> Visible() const;
  // Two states with the same text are the same.
  std::string Key() const;
};

// One change that can be lost, or a sync.
struct DiskChange {
  enum class Kind { kName, kSize, kWrite, kInsert, kCollapse, kMode, kSyncFile, kSyncFolder };
  Kind kind = Kind::kWrite;
  uint64_t file = 0;  // the file's number, or that of the folder that is synced
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::string data = {};
  // kName: the entry that goes, and the one that comes, each a folder's number and a name in it.
  std::optional<std::pair<uint64_t, std::string>> from = {};
  std::optional<std::pair<uint64_t, std::string>> to = {};
  bool is_folder = false;            // kName: of what the name is
  std::vector<uint64_t> pages = {};  // of a write: where each page of it is put on the device
};

// What the power of a disk is lost with: which unsynced changes stay. `change` counts within the unsynced ones.
using Survives = std::function<bool(size_t change)>;

class Disk {
 public:
  // Takes over a folder's files, in extents of a few pages each.
  explicit Disk(const std::filesystem::path& folder);
  explicit Disk(DiskState state) : before_(state), now_(std::move(state)) { Number(); }

  const DiskState& now() const { return now_; }
  size_t changes() const { return changes_.size(); }
  // The places in the list of changes just before each sync, and its end: nothing more can be lost anywhere between.
  std::vector<size_t> LossPoints() const;
  // How many of the first `count` changes may be lost.
  size_t Unsynced(size_t count) const;
  // What is left of the first `count` changes. `torn`: surviving shifts stop after so many extents.
  DiskState Left(size_t count, const Survives& survives, std::optional<size_t> torn = std::nullopt) const;

  void Add(DiskChange change);
  uint64_t NewNumber() { return next_number_++; }
  std::vector<uint64_t> NewPages(uint64_t count);

 private:
  void Number();
  std::vector<bool> Covered(size_t count) const;

  DiskState before_;
  DiskState now_;
  std::vector<DiskChange> changes_;
  uint64_t next_number_ = 1;
  uint64_t next_page_ = 1;
};

// What the folder's file system can do.
struct DiskAbilities {
  bool clone = false;
  bool insert = false;
};

class LosingFolder : public OutputFolder {
 public:
  // Writes the disk's files out to `path`, an empty folder.
  LosingFolder(const std::filesystem::path& path, Disk* disk, DiskAbilities abilities);

  // From the nth change or sync from now on everything fails, as after a kill: nothing is changed any more.
  void KillAfter(size_t changes) { left_ = changes; }
  // Leaves out the nth sync, as a defect would.
  void SkipSync(size_t number) { skipped_ = number; }
  size_t syncs() const { return syncs_; }

  Result<bool> CanClone(const ByteSource& source) const override;
  bool CanInsertRange(uint64_t block_bytes) const override { return abilities_.insert && block_bytes == kPage; }
  Result<std::vector<Extent>> OwnExtents(const std::filesystem::path& name) const override;

 private:
  friend class LosingFile;

  Result<std::unique_ptr<OutputFile>> DoOpen(const std::filesystem::path& name, bool create) override;
  Result<bool> DoMakeFolder(const std::filesystem::path& name, unsigned mode) override;
  Status DoRename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  Status DoRemove(const std::filesystem::path& name) override;
  Status DoRemoveFolder(const std::filesystem::path& name) override;
  Status DoSyncFolder(const std::filesystem::path& name) override;

  // Counts a change; an error once the process is killed.
  Status Begin();
  Status SyncOf(DiskChange::Kind kind, uint64_t number);
  Status Put(const std::filesystem::path& path, uint64_t file, DiskChange change);
  void AddName(uint64_t number, bool is_folder, const std::filesystem::path* from, const std::filesystem::path* to);
  uint64_t NumberOf(const std::filesystem::path& name) const;
  std::pair<uint64_t, std::string> EntryOf(const std::filesystem::path& name) const;

  Disk* const disk_;
  const DiskAbilities abilities_;
  mutable std::mutex mutex_;
  size_t left_ = SIZE_MAX;
  size_t skipped_ = SIZE_MAX;
  size_t syncs_ = 0;
};

}  // namespace quantport::test
