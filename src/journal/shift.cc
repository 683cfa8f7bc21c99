#include "journal/shift.h"

#include <algorithm>
#include <optional>

#include "io/extents.h"

namespace quantport {
namespace {

Error Changed(const File& file, std::string why) {
  return Error{ErrorKind::kUnfinishedChange,
               std::move(why),
               file.path().string(),
               {},
               "the file was changed or moved after the interruption; take it from where it came"};
}

// A stretch of old bytes as they lie now.
struct Found {
  uint64_t was = 0;
  uint64_t is = 0;
  uint64_t bytes = 0;
};

// Both lists are in the order of the file, but not of the device: the old one is searched by its places there.
std::vector<Found> FindOld(const std::vector<Extent>& now, std::vector<Extent> old) {
  const auto by_place = [](const Extent& a, const Extent& b) { return a.physical < b.physical; };
  std::sort(old.begin(), old.end(), by_place);
  std::vector<Found> found;
  for (const Extent& extent : now) {
    auto it = std::upper_bound(old.begin(), old.end(), extent, by_place);
    if (it != old.begin()) --it;
    for (; it != old.end() && it->physical < extent.physical + extent.bytes; ++it) {
      const uint64_t begin = std::max(it->physical, extent.physical);
      const uint64_t end = std::min(it->physical + it->bytes, extent.physical + extent.bytes);
      if (begin >= end) continue;
      found.push_back({it->logical + (begin - it->physical), extent.logical + (begin - extent.physical), end - begin});
    }
  }
  return found;
}

// Takes out `inserted` bytes at `gap`. At the end of the file that is a matter of its size only.
Status CloseGap(File* file, const ShardChange& change, uint64_t gap) {
  auto size = file->Size();
  if (!size) return size.errors();
  const uint64_t grown = change.old_size + change.inserted;
  if (*size > grown) {
    if (auto status = file->SetSize(grown); !status) return status;
  }
  if (gap + change.inserted >= grown) return file->SetSize(change.old_size);
  return CollapseRange(file, gap, change.inserted);
}

}  // namespace

Result<BlockShift> FindShift(const File& file, const ShardChange& change) {
  auto size = file.Size();
  if (!size) return size.errors();
  if (*size == change.old_size && change.inserted != 0) return BlockShift{};
  if (*size < change.old_size + change.inserted || *size > change.new_size)
    return Changed(file, "its size is neither the old nor the new one");
  if (change.inserted == 0) return BlockShift{true, 0};
  auto now = FileExtents(file);
  if (!now) return now.errors();
  const std::vector<Found> found = FindOld(*now, change.extents);
  if (found.empty()) return Changed(file, "none of its blocks is where it was");
  BlockShift shift{true, 0};
  for (const Found& part : found) {
    if (part.is == part.was) shift.gap = std::max(shift.gap, part.was + part.bytes);
  }
  for (const Found& part : found) {
    const uint64_t moved = part.was < shift.gap ? 0 : change.inserted;
    if (part.is != part.was + moved) return Changed(file, "its blocks are in an order that no interruption leaves");
  }
  return shift;
}

Status FinishShift(File* file, const ShardChange& change) {
  if (change.inserted == 0) return {};
  auto shift = FindShift(*file, change);
  if (!shift) return shift.errors();
  if (shift->begun && shift->gap == 0) return {};
  if (shift->begun) {
    if (auto status = CloseGap(file, change, shift->gap); !status) return status;
  }
  if (auto status = InsertRange(file, 0, change.inserted); !status) return status;
  return file->Sync();
}

Status UndoShift(File* file, const ShardChange& change) {
  auto shift = FindShift(*file, change);
  if (!shift) return shift.errors();
  if (change.inserted == 0) {
    if (auto status = file->SetSize(change.old_size); !status) return status;
  } else if (shift->begun) {
    if (auto status = CloseGap(file, change, shift->gap); !status) return status;
  }
  return file->Sync();
}

}  // namespace quantport
