// Sharing of a file's blocks with another file (reflink), where the file system has that: xfs, btrfs.
#pragma once

#include <cstdint>
#include <filesystem>

#include "io/byte_source.h"
#include "io/file.h"
#include "quantport/error.h"

namespace quantport {

// Makes bytes [to, to + bytes) of `target` the blocks that `source` has from `from` on. Requires multiples of the
// target's block size. False where this file system, or this pair of files, can't. Errors: kIo.
Result<bool> CloneRange(const File& source, uint64_t from, File* target, uint64_t to, uint64_t bytes);

// The block size of the file system that the file is on. Errors: kIo.
Result<uint64_t> BlockSize(const File& file);

// Whether files in `directory` can share blocks with `source`, found out by doing it once with a file that never gets a
// name; where that is impossible, a hidden one that is removed. False for an empty source, and for one that is not on
// this machine. Errors: kIo.
Result<bool> CanClone(const ByteSource& source, const std::filesystem::path& directory);

}  // namespace quantport
