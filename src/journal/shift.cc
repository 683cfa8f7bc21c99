#include "journal/shift.h"

#include <algorithm>
#include <optional>

namespace quantport {
namespace {

Error Changed(const OutputFile& file, std::string why) {
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

bool EachIsEither(std::string_view bytes, std::string_view a, std::string_view b) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != a[i] && bytes[i] != b[i]) return false;
  }
  return true;
}

// Whether the old header's bytes are `inserted` further, where the new header's have not been written over them yet.
// The first block moves last when blocks are inserted, and first when they are taken out: where it has moved, all have.
// That also tells of a copy of the folder, whose blocks lie elsewhere.
Result<bool> HasHeaderMoved(const OutputFile& file, const ShardChange& change, const JournalReader& journal) {
  auto old_header = journal.Read(change.old_header);
  if (!old_header) return old_header.errors();
  auto new_header = journal.Read(change.new_header);
  if (!new_header) return new_header.errors();
  std::string now(change.new_header.bytes, '\0');
  if (auto status = file.ReadAt(std::as_writable_bytes(std::span(now)), 0); !status) return status.errors();
  // The length field is 0 while anything else may be in doubt, wherever the block that holds it is.
  const std::string moved = std::string(change.inserted, '\0') + std::string(8, '\0') + old_header->substr(8);
  const std::string moved_as_it_was = std::string(change.inserted, '\0') + *old_header;
  const std::string_view text = std::string_view(now).substr(8);
  return EachIsEither(text, std::string_view(moved).substr(8), std::string_view(*new_header).substr(8)) ||
         EachIsEither(text, std::string_view(moved_as_it_was).substr(8), std::string_view(*new_header).substr(8));
}

// Takes out `inserted` bytes at `gap`. At the end of the file that is a matter of its size only.
Status CloseGap(OutputFile* file, const ShardChange& change, uint64_t gap) {
  auto size = file->Size();
  if (!size) return size.errors();
  const uint64_t grown = change.old_size + change.inserted;
  if (*size > grown) {
    if (auto status = file->SetSize(grown); !status) return status;
    if (auto status = file->Sync(); !status) return status;
  }
  if (gap + change.inserted >= grown) return file->SetSize(change.old_size);
  return file->CollapseRange(gap, change.inserted);
}

}  // namespace

Result<BlockShift> FindShift(const OutputFile& file, const ShardChange& change, const JournalReader& journal) {
  auto size = file.Size();
  if (!size) return size.errors();
  if (*size == change.old_size && change.inserted != 0) return BlockShift{};
  if (*size < change.old_size + change.inserted || *size > change.new_size)
    return Changed(file, "its size is neither the old nor the new one");
  if (change.inserted == 0) return BlockShift{true, 0};
  auto now = file.Extents();
  if (!now) return now.errors();
  const std::vector<Found> found = FindOld(*now, change.extents);
  const auto is_first = [](const Found& part) { return part.was == 0; };
  if (std::none_of(found.begin(), found.end(), is_first)) {
    auto moved = HasHeaderMoved(file, change, journal);
    if (!moved) return moved.errors();
    if (!*moved) return Changed(file, "its first block is not where it was on the device");
    if (found.empty()) return BlockShift{true, 0};
  }
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

Status FinishShift(OutputFile* file, const ShardChange& change, const JournalReader& journal) {
  if (change.inserted == 0) return {};
  auto shift = FindShift(*file, change, journal);
  if (!shift) return shift.errors();
  if (shift->begun && shift->gap == 0) return {};
  if (shift->begun) {
    if (auto status = CloseGap(file, change, shift->gap); !status) return status;
    if (auto status = file->Sync(); !status) return status;
  }
  if (auto status = file->InsertRange(0, change.inserted); !status) return status;
  return file->Sync();
}

Status UndoShift(OutputFile* file, const ShardChange& change, const JournalReader& journal) {
  auto shift = FindShift(*file, change, journal);
  if (!shift) return shift.errors();
  if (change.inserted == 0) {
    if (auto status = file->SetSize(change.old_size); !status) return status;
  } else if (shift->begun) {
    if (auto status = CloseGap(file, change, shift->gap); !status) return status;
  }
  return file->Sync();
}

}  // namespace quantport
