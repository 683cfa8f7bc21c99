#include "support/missing_memory.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace quantport::test {
namespace {

std::atomic<bool> g_counts = false;
std::atomic<size_t> g_allocations = 0;
std::atomic<size_t> g_missing = 0;
std::atomic<size_t> g_least_bytes = 0;

}  // namespace

MissingMemory::MissingMemory(size_t allocation, size_t least_bytes) {
  g_least_bytes = least_bytes;
  g_allocations = 0;
  g_missing = allocation;
  g_counts = true;
}

MissingMemory::~MissingMemory() { g_counts = false; }

size_t MissingMemory::allocations() const { return g_allocations; }

void* Allocate(size_t bytes) {
  const bool counts = g_counts.load(std::memory_order_relaxed) && bytes >= g_least_bytes;
  const bool missing = counts && ++g_allocations == g_missing;
  void* const memory = missing ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace quantport::test

namespace {

void* AllocateOrNull(size_t bytes) noexcept {
  try {
    return quantport::test::Allocate(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace

// Those of the whole process, all of them: the standard library's others call the first of each kind, but those of a
// sanitizer take memory of its own, which std::free may not give back.
void* operator new(size_t bytes) { return quantport::test::Allocate(bytes); }
void* operator new[](size_t bytes) { return quantport::test::Allocate(bytes); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return AllocateOrNull(bytes); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return AllocateOrNull(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
