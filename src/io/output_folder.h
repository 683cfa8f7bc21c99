// The folder that a result is written into: the only way by which quantport changes a file system.
//
// A change is certain to be on the disk when a sync that came after it has returned. A loss of power before that may
// keep any of the changes since, in any combination. So a rename syncs what it shows, and who relies on the new name
// syncs again. Tests write into a folder that loses what was not synced (tests/support/losing_folder.h).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <vector>

#include "io/byte_source.h"
#include "io/extents.h"
#include "io/file.h"
#include "quantport/error.h"

namespace quantport {

// A file that is being written. Its writes are safe in several threads; all errors are kIo.
class OutputFile {
 public:
  virtual ~OutputFile() = default;

  virtual const std::filesystem::path& path() const = 0;
  virtual Result<uint64_t> Size() const = 0;
  // Fills `out` from `offset`; an end of file before that is an error.
  virtual Status ReadAt(std::span<std::byte> out, uint64_t offset) const = 0;
  // As FileExtents (io/extents.h).
  virtual Result<std::vector<Extent>> Extents() const = 0;
  // Of the file system.
  virtual Result<uint64_t> BlockSize() const = 0;

  Status WriteAt(std::span<const std::byte> data, uint64_t offset);
  // For large data: past the page cache where the file system can. Requires data that begins on a page and an offset
  // that is a multiple of kDirectBlock. True where the data is in the page cache now and not on its way to the disk.
  Result<bool> WriteLarge(std::span<const std::byte> data, uint64_t offset);
  Status SetSize(uint64_t bytes);
  // Reserves space for a range, so that a full disk shows before hours of copying; the file grows to hold it. A file
  // system that can't reserve gets the size only.
  Status Allocate(uint64_t offset, uint64_t bytes);
  // Makes bytes [to, to + bytes) the blocks that `source` has from `from` on. Requires multiples of the block size.
  // False where this file system, or this pair of files, can't.
  Result<bool> CloneRange(const File& source, uint64_t from, uint64_t to, uint64_t bytes);
  // As the functions of io/extents.h. A loss of power can stop both half way.
  Status InsertRange(uint64_t offset, uint64_t bytes);
  Status CollapseRange(uint64_t offset, uint64_t bytes);
  // The mode of `from` and, where this process may, its owner and group. A symbolic link is followed.
  Status CopyPermissions(const std::filesystem::path& from);

  // Begins to write what the page cache holds of a range, and waits until it is written and lets go of it: hints that
  // keep the disk busy, and no syncs.
  virtual Status StartWriting(uint64_t offset, uint64_t bytes) = 0;
  virtual Status FinishWriting(uint64_t offset, uint64_t bytes) = 0;

  // Whatever was changed before is on the disk now, by whichever process.
  Status Sync();
  // Whether anything was changed here since the last sync.
  bool changed() const { return changed_.load(std::memory_order_relaxed); }

 private:
  virtual Status DoWriteAt(std::span<const std::byte> data, uint64_t offset) = 0;
  virtual Result<bool> DoWriteLarge(std::span<const std::byte> data, uint64_t offset) = 0;
  virtual Status DoSetSize(uint64_t bytes) = 0;
  virtual Status DoAllocate(uint64_t offset, uint64_t bytes) = 0;
  virtual Result<bool> DoCloneRange(const File& source, uint64_t from, uint64_t to, uint64_t bytes) = 0;
  virtual Status DoInsertRange(uint64_t offset, uint64_t bytes) = 0;
  virtual Status DoCollapseRange(uint64_t offset, uint64_t bytes) = 0;
  virtual Status DoCopyPermissions(const std::filesystem::path& from) = 0;
  virtual Status DoSync() = 0;

  std::atomic<bool> changed_ = false;
};

// Names are paths relative to the folder. One thread at a time.
class OutputFolder {
 public:
  virtual ~OutputFolder() = default;

  // Where it is, for those that read it and for messages.
  const std::filesystem::path& path() const { return path_; }

  // A new file; one that is there already is an error. It belongs to the folder until it is closed or synced with the
  // folder.
  Result<OutputFile*> Create(const std::filesystem::path& name);
  // A regular file that is there, by this or another process; a symbolic link is refused. The same object until it is
  // closed.
  Result<OutputFile*> Open(const std::filesystem::path& name);
  // Syncs the file where it was changed, and lets go of it.
  Status Close(OutputFile* file);

  // Makes a folder, and those above it that are missing; false where it is there. "": this folder itself.
  Result<bool> MakeFolder(const std::filesystem::path& name, unsigned mode = 0755);
  // Atomic. Replaces a file or an empty folder that has the name. Syncs first what was changed through this object at
  // `from` and below, and closes files: a name that reached the disk before its data would make a finished-looking
  // checkpoint of zeros. kCancelled between two files.
  Status Rename(const std::filesystem::path& from, const std::filesystem::path& to,
                const std::atomic<bool>* cancel = nullptr);
  // Nothing there is no error. A folder goes with all that is in it.
  Status Remove(const std::filesystem::path& name);
  Status RemoveFolder(const std::filesystem::path& name);

  // Whatever names were changed before in this one folder are on the disk now, by whichever process.
  Status SyncFolder(const std::filesystem::path& name);
  // Whatever was changed through this object is on the disk now: files, which are closed, and then names. kCancelled
  // between two files.
  Status Sync(const std::atomic<bool>* cancel = nullptr);

  // Whether files here can share blocks with `source`; as CanClone (io/clone.h).
  virtual Result<bool> CanClone(const ByteSource& source) const = 0;
  // As CanInsertRange (io/extents.h).
  virtual bool CanInsertRange(uint64_t block_bytes) const = 0;
  // As FileExtents of a file here; empty where another file has a part of it, or a part moves when it is written over.
  virtual Result<std::vector<Extent>> OwnExtents(const std::filesystem::path& name) const = 0;

 protected:
  explicit OutputFolder(std::filesystem::path path) : path_(std::move(path)) {}

 private:
  virtual Result<std::unique_ptr<OutputFile>> DoOpen(const std::filesystem::path& name, bool create) = 0;
  // One level; false where the folder is there.
  virtual Result<bool> DoMakeFolder(const std::filesystem::path& name, unsigned mode) = 0;
  virtual Status DoRename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  virtual Status DoRemove(const std::filesystem::path& name) = 0;
  virtual Status DoRemoveFolder(const std::filesystem::path& name) = 0;
  virtual Status DoSyncFolder(const std::filesystem::path& name) = 0;

  Result<OutputFile*> Keep(const std::filesystem::path& name, bool create);
  Status SyncBelow(const std::filesystem::path& name, const std::atomic<bool>* cancel);
  void Forget(const std::filesystem::path& name);

  const std::filesystem::path path_;
  std::map<std::filesystem::path, std::unique_ptr<OutputFile>> open_;
  std::set<std::filesystem::path> changed_;  // folders whose names were changed
};

// The real one.
std::unique_ptr<OutputFolder> OpenOutputFolder(const std::filesystem::path& path);

// A new file with this text.
Status WriteText(OutputFolder* folder, const std::filesystem::path& name, std::string_view text);

// A new file with the bytes of another.
Status CopyIn(OutputFolder* folder, const ByteSource& from, const std::filesystem::path& name,
              const std::atomic<bool>* cancel = nullptr);

}  // namespace quantport
