// Memory for large reads and writes.
#pragma once

#include <cstddef>
#include <span>

namespace quantport {

// Zeroed memory that begins on a page, in huge pages where the kernel has them: a transfer past the page cache is cut
// into requests of at most 254 pieces of contiguous memory, which is 1 MiB in small pages. Measured on a virtual disk,
// 3.2 GB: 5.3 s from small pages, 3.6 s from huge ones (docs/benchmarks.md).
class IoBuffer {
 public:
  explicit IoBuffer(size_t bytes);
  IoBuffer(const IoBuffer&) = delete;
  IoBuffer& operator=(const IoBuffer&) = delete;
  ~IoBuffer();

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  void* mapping_ = nullptr;
  size_t mapped_ = 0;
  std::span<std::byte> bytes_;
};

}  // namespace quantport
