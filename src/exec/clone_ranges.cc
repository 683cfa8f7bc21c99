#include "exec/clone_ranges.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "io/direct.h"

namespace quantport {
namespace {

// Shorter ranges are copied with their neighbours: each clone is a system call and an extent of its own. Data that
// stays in its order is one range, however small its tensors are.
constexpr uint64_t kMinCloneBlocks = 2;

}  // namespace

Result<std::vector<Stretch>> Cloner::Clone(std::span<const CopyRange> ranges, const Sources& sources,
                                           OutputFile* target, uint64_t target_bytes) {
  const std::vector<Stretch> whole =
      target_bytes == 0 ? std::vector<Stretch>() : std::vector<Stretch>{{0, target_bytes}};
  if (mode_ == CloneMode::kNever) return whole;
  const auto block = target->BlockSize();
  if (!block) return block.errors();
  const uint64_t unit = std::max(*block, kDirectBlock);
  refused_.clear();
  std::vector<Stretch> left;
  uint64_t written = 0;
  for (const CopyRange& range : ranges) {
    if (range.source == kZeros || range.step != 0 || range.from % *block != range.to % *block) continue;
    const Stretch inside = {RoundUp(range.to, unit), (range.to + range.bytes) / unit * unit};
    if (inside.end < inside.begin + kMinCloneBlocks * unit) continue;
    auto cloned = CloneInside(inside, range, sources, target);
    if (!cloned) return cloned.errors();
    if (!*cloned) continue;
    if (written < inside.begin) left.push_back({written, inside.begin});
    written = inside.end;
  }
  if (written < target_bytes) left.push_back({written, target_bytes});
  return left;
}

Result<bool> Cloner::CloneInside(const Stretch& inside, const CopyRange& range, const Sources& sources,
                                 OutputFile* target) {
  if (refused_.contains(range.source)) return false;
  const ByteSource& source = sources[range.source];
  const uint64_t bytes = inside.end - inside.begin;
  auto cloned = source.local() == nullptr
                    ? Result<bool>(false)
                    : target->CloneRange(*source.local(), range.from + (inside.begin - range.to), inside.begin, bytes);
  if (!cloned) return cloned.errors();
  if (*cloned) {
    cloned_bytes_ += bytes;
  } else if (mode_ == CloneMode::kAlways) {
    return Error{ErrorKind::kIo,
                 fmt::format("can't share blocks with {}: the file system has no reflinks, or it is another one",
                             source.address()),
                 target->path().string(),
                 {},
                 "copy instead, or write to the file system of the export"};
  } else {
    refused_.insert(range.source);
  }
  return cloned;
}

}  // namespace quantport
