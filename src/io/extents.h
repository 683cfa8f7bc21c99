// Where a file's blocks lie, and moving them without copying: what ext4 and xfs can do with fallocate(2).
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "io/file.h"
#include "quantport/error.h"

namespace quantport {

// A stretch of a file that lies together on the device. Offsets and sizes in bytes.
struct Extent {
  uint64_t logical = 0;   // in the file
  uint64_t physical = 0;  // on the device
  uint64_t bytes = 0;
};

// In the order of the file; what has no place of its own on the device (holes, data inside the inode) is left out.
// What was written is put on the device first. Errors: kIo where the file system does not tell.
Result<std::vector<Extent>> FileExtents(const File& file);

// Whether every block of the file has a place on the device, which no other file has and which stays when it is written
// over. Errors as above.
Result<bool> HasPlacesOfItsOwn(const File& file);

// Whether no two of them overlap, in the file or on the device.
bool AreDisjoint(std::vector<Extent> extents);

// Moves everything from `offset` on by `bytes` towards the end; zeros appear between. Both are multiples of the block
// size. Not atomic at a loss of power: blocks move one extent after the other, the last first (docs/durability.md).
Status InsertRange(File* file, uint64_t offset, uint64_t bytes);

// Takes [offset, offset + bytes) out and moves what follows towards the start. The range may not reach the end.
Status CollapseRange(File* file, uint64_t offset, uint64_t bytes);

// Whether files in the folder can do both, found out with one that has no name. Blocks of `block_bytes`.
bool CanInsertRange(const std::filesystem::path& folder, uint64_t block_bytes);

}  // namespace quantport
