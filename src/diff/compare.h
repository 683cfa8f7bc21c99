// Compares byte sequences that lie scattered over files, with bounded memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/workers.h"
#include "io/byte_source.h"
#include "quantport/error.h"

namespace quantport {

struct FileRange {
  uint32_t file = 0;  // index into the files given
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// Two sequences of `bytes` bytes each.
struct BytePair {
  std::vector<FileRange> a;
  std::vector<FileRange> b;
  uint64_t bytes = 0;
};

struct ByteDifference {
  uint64_t count = 0;  // of bytes that differ; 0: equal
  uint64_t first = 0;  // offset of the first of them
};

// One result for each pair. Memory: two buffers of 4 MiB a thread. Errors: kIo, kCancelled.
Result<std::vector<ByteDifference>> CompareBytes(const std::vector<std::unique_ptr<const ByteSource>>& files,
                                                 const std::vector<BytePair>& pairs, const WorkOptions& options);

}  // namespace quantport
