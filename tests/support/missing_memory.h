// The memory of the test's process, of which any one piece can be made to be missing.
#pragma once

#include <cstddef>

namespace quantport::test {

// While one exists, allocations by `new` in every thread are counted, and one of them throws std::bad_alloc.
class MissingMemory {
 public:
  // `allocation` counts those of at least so many bytes from 1; 0: none is missing.
  MissingMemory(size_t allocation, size_t least_bytes);
  MissingMemory(const MissingMemory&) = delete;
  MissingMemory& operator=(const MissingMemory&) = delete;
  ~MissingMemory();

  size_t allocations() const;
};

}  // namespace quantport::test
