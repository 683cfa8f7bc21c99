// Reads and writes past the page cache, where the file system has that.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "io/file.h"
#include "quantport/error.h"

namespace quantport {

// Offsets, lengths and addresses of direct transfers are multiples of this: the logical blocks of all usual disks.
inline constexpr uint64_t kDirectBlock = 4096;

// A second descriptor of a file. Whatever it refuses goes through the file's own: the first refusal for good, what a
// short transfer leaves of a block for once.
class DirectFile {
 public:
  enum class Access { kRead, kWrite };

  // `file` must live as long as this does.
  DirectFile(File* file, Access access);
  DirectFile(const DirectFile&) = delete;
  DirectFile& operator=(const DirectFile&) = delete;
  ~DirectFile();

  bool usable() const { return usable_.load(std::memory_order_relaxed); }

  // Fills the first `needed` bytes of `out`, and perhaps more of it. Requires whole blocks.
  Status ReadBlocks(std::span<std::byte> out, uint64_t offset, uint64_t needed);
  Status WriteBlocks(std::span<const std::byte> data, uint64_t offset);

 private:
  File* file_;
  int fd_ = -1;
  std::atomic<bool> usable_ = false;
};

}  // namespace quantport
