// What tells whether a file is still the one that was read.
#pragma once

#include <cstdint>
#include <string>

namespace quantport {

struct FileStamp {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t modified_ns = 0;   // mtime, since the epoch
  int64_t changed_ns = 0;    // ctime: a writer can put mtime back, but not this one
  std::string version = {};  // of a file on a server, which has no times to trust: its ETag or commit

  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

}  // namespace quantport
