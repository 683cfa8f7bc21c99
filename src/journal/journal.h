// What a change in place needs to be finished or taken back, whatever interrupts it: a file in the checkpoint's folder.
//
// Layout: 8 bytes "QPJRNL01", the bytes that are put back or written (in any number of pieces), JSON that says what
// they are, and at the end 40 bytes: JSON offset and length, CRC-32 of all that precedes, each as a 64-bit
// little-endian number, 8 bytes of zeros, and the 8 bytes again. It is written under another name, fsynced and renamed,
// so that it is whole wherever it exists; the CRC is for disks and people.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/extents.h"
#include "io/file.h"
#include "io/output_folder.h"
#include "quantport/error.h"

namespace quantport {

// A piece of the journal file.
struct Piece {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// Larger changes are several patches, so that memory stays bounded.
inline constexpr uint64_t kMaxPatchBytes = 8 << 20;

// Bytes of a shard that change, at an offset of the changed file. Beyond the old file's end nothing is put back.
struct Patch {
  uint64_t offset = 0;
  Piece old_bytes;
  Piece new_bytes;
};

// A shard that keeps its data and gets another header.
struct ShardChange {
  std::string name;
  uint64_t old_size = 0;
  uint64_t new_size = 0;
  uint64_t inserted = 0;  // bytes, whole blocks, put in at the start of the file
  Piece old_header;       // the length field included
  Piece new_header;
  std::vector<Extent> extents;  // of the old file; known where blocks are inserted
  std::vector<Patch> patches;
};

// A file that is put into another's place, that comes new, or that goes away.
struct Replacement {
  std::string name;
  bool had_old = false;
  bool has_new = false;
};

struct Journal {
  std::vector<ShardChange> shards;
  std::vector<Replacement> replacements;
};

// Writes the journal of a folder. The pieces first, while they are read from the files they change.
class JournalWriter {
 public:
  // .quantport-staging must be there; the journal is written into it until Publish.
  static Result<JournalWriter> Create(OutputFolder* folder);

  Result<Piece> Add(std::span<const std::byte> bytes);

  // Syncs what was staged through the folder, and gives the journal its name. From here on the folder counts as being
  // changed. Errors: kIo, kUnfinishedChange where it could not be read back, kCancelled; then it gets no name.
  Status Publish(const Journal& journal, const std::atomic<bool>* cancel = nullptr);

 private:
  JournalWriter(OutputFile* file, OutputFolder* folder) : file_(file), folder_(folder) {}

  Status CheckReadable(std::string_view json) const;
  Status Append(std::span<const std::byte> bytes);

  OutputFile* file_;
  OutputFolder* folder_;
  uint64_t end_ = 0;
  uint64_t crc_ = 0;
};

// A journal that was read back. It lies in a stranger's folder, so every name, size and offset was checked.
class JournalReader {
 public:
  // Errors: kUnfinishedChange where the file is no whole journal, kIo.
  static Result<JournalReader> Open(const std::filesystem::path& folder);

  const Journal& journal() const { return journal_; }
  Result<std::string> Read(const Piece& piece) const;

 private:
  JournalReader(File file, Journal journal) : file_(std::move(file)), journal_(std::move(journal)) {}

  File file_;
  Journal journal_;
};

}  // namespace quantport
