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

// A second descriptor of a file, for direct transfers only.
class DirectDescriptor {
 public:
  DirectDescriptor(const File& file, int mode);
  DirectDescriptor(const DirectDescriptor&) = delete;
  DirectDescriptor& operator=(const DirectDescriptor&) = delete;
  ~DirectDescriptor();

  // False where the file system has no direct transfers, and once it refused one.
  bool usable() const { return usable_.load(std::memory_order_relaxed); }
  void GiveUp() { usable_.store(false, std::memory_order_relaxed); }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
  std::atomic<bool> usable_ = false;
};

// Whatever a direct transfer refuses goes through the file's own descriptor: the first refusal for good, what a short
// transfer leaves of a block for once.
class DirectReader {
 public:
  // `file` must live as long as this does.
  explicit DirectReader(const File* file);

  bool usable() const { return direct_.usable(); }

  // Fills the first `needed` bytes of `out`, and perhaps more of it. Requires whole blocks.
  Status ReadBlocks(std::span<std::byte> out, uint64_t offset, uint64_t needed);

 private:
  const File* file_;
  DirectDescriptor direct_;
};

class DirectWriter {
 public:
  // As above.
  explicit DirectWriter(File* file);

  bool usable() const { return direct_.usable(); }

  // Requires whole blocks.
  Status WriteBlocks(std::span<const std::byte> data, uint64_t offset);

 private:
  File* file_;
  DirectDescriptor direct_;
};

}  // namespace quantport
