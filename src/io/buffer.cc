#include "io/buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#include "base/checked.h"

namespace quantport {
namespace {

constexpr size_t kHugePage = 2 << 20;

}  // namespace

IoBuffer::IoBuffer(size_t bytes) : mapped_(bytes + kHugePage) {
  mapping_ = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) throw std::bad_alloc();
  const auto address = reinterpret_cast<uintptr_t>(mapping_);
  const size_t skipped = RoundUp(address, kHugePage) - address;
  bytes_ = {static_cast<std::byte*>(mapping_) + skipped, bytes};
  // Whole huge pages only: what lies behind the last one is not worth another 2 MiB.
  (void)::madvise(bytes_.data(), bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
}

IoBuffer::~IoBuffer() { ::munmap(mapping_, mapped_); }

}  // namespace quantport
