// Moves stretches of files through a buffer on the way that was measured to be the fastest.
//
// Cold, past the page cache on both sides; what the page cache holds already is read from it. Measured on a virtual
// disk of 1 to 1.5 GB/s, 3.2 GB with the final fsync, medians of five: cold 2.6 s, where `cp -r` and sync took 6.6 s
// (4.2 at best); warm, of three, 1.4 s to 3.2 s. Tried before and slower, cold: reads and writes through the page
// cache 4.2 to 7.0 s, direct ones from small pages 5.3 s, copy_file_range 10.5 s; direct reads of what was cached 3.5 s
// (docs/benchmarks.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "io/byte_source.h"
#include "io/direct.h"
#include "io/file.h"
#include "io/output_folder.h"
#include "quantport/error.h"

namespace quantport {

// How much of a buffer must be free behind what SourceFile::Read fills.
inline constexpr uint64_t kReadSlack = 2 * kDirectBlock;

// Safe in several threads.
class SourceFile {
 public:
  // `source` must live as long as this does.
  explicit SourceFile(const ByteSource* source) : source_(source) {
    if (source->local() != nullptr) direct_.emplace(source->local());
  }

  // Puts `bytes` bytes from `from` on at `at` of the buffer, and may change up to kReadSlack bytes behind them.
  // Requires a buffer that begins on a page.
  Status Read(std::span<std::byte> buffer, uint64_t at, uint64_t bytes, uint64_t from);

 private:
  Status ReadDirect(std::span<std::byte> buffer, uint64_t at, uint64_t bytes, uint64_t from);

  const ByteSource* source_;
  std::optional<DirectReader> direct_;  // none: not a file of this machine
};

// What one thread wrote into the page cache, on its way out of it: the disk works while the thread fills its next
// window, and the cache holds two windows of each thread and not the checkpoint. Measured with two threads, 3.2 GB:
// warm 1.7 s, against 6.9 s where fsync at the end finds everything still to do.
class Writeback {
 public:
  Status Add(OutputFile* file, uint64_t offset, uint64_t bytes);
  Status Finish();

 private:
  OutputFile* file_ = nullptr;
  uint64_t offset_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace quantport
