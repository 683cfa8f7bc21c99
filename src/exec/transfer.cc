#include "exec/transfer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/checked.h"

namespace quantport {
namespace {

// Shorter stretches go through the page cache, whose read-ahead serves neighbours.
constexpr uint64_t kMinDirectBytes = 128 << 10;

uint64_t RoundDown(uint64_t value) { return value / kDirectBlock * kDirectBlock; }

}  // namespace

Status SourceFile::Read(std::span<std::byte> buffer, uint64_t at, uint64_t bytes, uint64_t from) {
  const auto out = buffer.subspan(at, bytes);
  const File* file = source_->local();
  if (file == nullptr || bytes < kMinDirectBytes) return source_->ReadAt(out, from);
  if (file->CachedBytes(from, bytes) >= bytes / 4 * 3) return source_->ReadAt(out, from);
  if (direct_->usable()) return ReadDirect(buffer, at, bytes, from);
  auto status = source_->ReadAt(out, from);
  file->AdviseDontNeed(from, bytes);
  return status;
}

// Whole blocks around the range, put where they cover its place in the buffer. Where source and target lie alike
// within their blocks, every byte is then in its place; else it is moved there, which costs a tenth of the reading.
Status SourceFile::ReadDirect(std::span<std::byte> buffer, uint64_t at, uint64_t bytes, uint64_t from) {
  const uint64_t landing = RoundDown(at);
  const uint64_t first = RoundDown(from);
  const uint64_t needed = from - first + bytes;
  // What stands in front of the range in its first block is another's.
  std::array<std::byte, kDirectBlock> front;
  const auto kept = buffer.subspan(landing, at - landing);
  std::copy(kept.begin(), kept.end(), front.begin());
  const auto blocks = buffer.subspan(landing, RoundUp(needed, kDirectBlock));
  auto status = direct_->ReadBlocks(blocks, first, needed);
  if (from - first != at - landing) std::memmove(buffer.data() + at, blocks.data() + (from - first), bytes);
  std::copy_n(front.begin(), kept.size(), kept.begin());
  return status;
}

Status Writeback::Add(OutputFile* file, uint64_t offset, uint64_t bytes) {
  if (auto status = file->StartWriting(offset, bytes); !status) return status;
  auto status = Finish();
  file_ = file;
  offset_ = offset;
  bytes_ = bytes;
  return status;
}

Status Writeback::Finish() {
  OutputFile* const file = std::exchange(file_, nullptr);
  return file == nullptr ? Status() : file->FinishWriting(offset_, bytes_);
}

}  // namespace quantport
