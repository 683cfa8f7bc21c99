// The memory of the test's process, of which any one piece can be made to be missing.
#pragma once

#include <cstddef>

namespace quantport::test {

// While one exists, large allocations by `new` in every thread are counted, and one of them throws std::bad_alloc.
// Small ones are left alone: nlohmann::json allocates in its destructor, from which no error comes out.
class MissingMemory {
 public:
  static constexpr size_t kLarge = 32 << 10;  // bytes

  // Counts from 1; 0: none is missing.
  explicit MissingMemory(size_t allocation);
  MissingMemory(const MissingMemory&) = delete;
  MissingMemory& operator=(const MissingMemory&) = delete;
  ~MissingMemory();

  size_t allocations() const;
};

}  // namespace quantport::test
