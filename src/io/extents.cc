#include "io/extents.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "io/retry.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

constexpr uint32_t kExtentsAtOnce = 512;
// Of these no place on the device is known, or none that stays.
constexpr uint32_t kPlaceless = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_ENCODED |
                                FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_DATA_TAIL;

Status MoveBlocks(File* file, int mode, uint64_t offset, uint64_t bytes, std::string_view doing) {
  return file->Change(doing, [&](int fd) {
    return Retry([&] { return ::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(bytes)); });
  });
}

// In the order of the file, once it is on the device.
template <typename Visit>
Status ForEachExtent(const File& file, const Visit& visit) {
  std::vector<std::byte> buffer(sizeof(fiemap) + kExtentsAtOnce * sizeof(fiemap_extent));
  uint64_t start = 0;
  while (true) {
    std::fill(buffer.begin(), buffer.end(), std::byte{0});
    auto* map = reinterpret_cast<fiemap*>(buffer.data());
    map->fm_start = start;
    map->fm_length = FIEMAP_MAX_OFFSET - start;
    map->fm_flags = FIEMAP_FLAG_SYNC;
    map->fm_extent_count = kExtentsAtOnce;
    auto status = file.Ask("list the blocks", [&](int fd) { return ::ioctl(fd, FS_IOC_FIEMAP, map); });
    if (!status) return status;
    for (uint32_t i = 0; i < map->fm_mapped_extents; ++i) {
      const fiemap_extent& extent = map->fm_extents[i];
      visit(extent);
      if ((extent.fe_flags & FIEMAP_EXTENT_LAST) != 0) return {};
      start = extent.fe_logical + extent.fe_length;
    }
    if (map->fm_mapped_extents == 0) return {};
  }
}

}  // namespace

Result<std::vector<Extent>> FileExtents(const File& file) {
  std::vector<Extent> extents;
  auto status = ForEachExtent(file, [&](const fiemap_extent& extent) {
    if ((extent.fe_flags & kPlaceless) == 0)
      extents.push_back({extent.fe_logical, extent.fe_physical, extent.fe_length});
  });
  if (!status) return status.errors();
  return extents;
}

Result<bool> HasPlacesOfItsOwn(const File& file) {
  bool own = true;
  auto status = ForEachExtent(
      file, [&](const fiemap_extent& extent) { own &= (extent.fe_flags & (kPlaceless | FIEMAP_EXTENT_SHARED)) == 0; });
  if (!status) return status.errors();
  return own;
}

bool AreDisjoint(std::vector<Extent> extents) {
  for (uint64_t Extent::*place : {&Extent::logical, &Extent::physical}) {
    std::sort(extents.begin(), extents.end(), [&](const Extent& a, const Extent& b) { return a.*place < b.*place; });
    for (size_t i = 1; i < extents.size(); ++i) {
      if (extents[i - 1].*place + extents[i - 1].bytes > extents[i].*place) return false;
    }
  }
  return true;
}

Status InsertRange(File* file, uint64_t offset, uint64_t bytes) {
  return MoveBlocks(file, FALLOC_FL_INSERT_RANGE, offset, bytes, "insert blocks");
}

Status CollapseRange(File* file, uint64_t offset, uint64_t bytes) {
  return MoveBlocks(file, FALLOC_FL_COLLAPSE_RANGE, offset, bytes, "take out blocks");
}

bool CanInsertRange(const fs::path& folder, uint64_t block_bytes) {
  auto file = File::CreateUnnamed(folder);
  if (!file) return false;
  const std::vector<std::byte> content(2 * block_bytes, std::byte{1});
  return file->WriteAt(content, 0).ok() && InsertRange(&*file, 0, block_bytes).ok() &&
         CollapseRange(&*file, 0, block_bytes).ok() && FileExtents(*file).ok();
}

}  // namespace quantport
