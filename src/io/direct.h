// Reads and writes past the page cache, where the file system has that.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "io/descriptor.h"
#include "io/file.h"
#include "quantport/error.h"

namespace quantport {

// Offsets, lengths and addresses of direct transfers are multiples of this: the logical blocks of all usual disks.
inline constexpr uint64_t kDirectBlock = 4096;

// A second descriptor of a file, for direct transfers only.
class DirectDescriptor {
 public:
  DirectDescriptor(const File& file, int mode);

  // False once the file system has refused a direct transfer.
  bool usable() const { return usable_.load(std::memory_order_relaxed); }
  void GiveUp() { usable_.store(false, std::memory_order_relaxed); }
  // Null where it is not usable.
  DescriptorUse Use();
  void Changed(const DescriptorUse& use) { descriptor_->Changed(use); }

 private:
  const std::shared_ptr<Descriptor> descriptor_;
  std::atomic<bool> usable_ = true;
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
