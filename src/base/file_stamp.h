// What tells whether a file is still the one that was read.
#pragma once

#include <cstdint>

namespace quantport {

struct FileStamp {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t modified_ns = 0;  // mtime, since the epoch

  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

}  // namespace quantport
