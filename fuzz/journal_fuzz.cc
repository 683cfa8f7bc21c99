// Journals: whatever is accepted stays in its folder, its pieces in the journal file, and what it would write in the
// file it changes; and it comes back equal when it is written and read again.
#include <algorithm>
#include <string_view>

#include "base/checked.h"
#include "check.h"
#include "journal/journal_json.h"

namespace {

using namespace quantport;
using fuzz::Check;

constexpr uint64_t kPiecesEnd = 1 << 20;

void CheckName(std::string_view name) {
  Check(!name.empty() && name != "." && name != "..", "a name is a file's");
  Check(name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos, "a name is no path");
  Check(!name.starts_with(".quantport-"), "a name is none of the change's own");
}

void CheckPiece(const Piece& piece) {
  const auto end = CheckedAdd(piece.offset, piece.bytes);
  Check(end && *end <= kPiecesEnd, "a piece lies before the JSON");
}

void CheckShard(const ShardChange& change) {
  CheckName(change.name);
  CheckPiece(change.old_header);
  CheckPiece(change.new_header);
  const auto grown = CheckedAdd(change.old_size, change.inserted);
  Check(grown && *grown <= change.new_size, "a file never shrinks");
  Check(change.new_header.bytes == change.old_header.bytes + change.inserted, "a header grows by what is inserted");
  Check(change.old_header.bytes >= sizeof(uint64_t), "a header has its length");
  for (const Extent& extent : change.extents) {
    Check(CheckedAdd(extent.logical, extent.bytes).has_value(), "blocks have a place in the file");
    Check(CheckedAdd(extent.physical, extent.bytes).has_value(), "blocks have a place on the device");
  }
  for (const Patch& patch : change.patches) {
    CheckPiece(patch.old_bytes);
    CheckPiece(patch.new_bytes);
    const auto end = CheckedAdd(patch.offset, patch.new_bytes.bytes);
    Check(end && *end <= change.new_size && patch.offset >= change.new_header.bytes, "a patch lies in the data");
    Check(patch.new_bytes.bytes <= kMaxPatchBytes && patch.old_bytes.bytes <= kMaxPatchBytes, "a patch is small");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto journal = ParseJournal(std::string_view(reinterpret_cast<const char*>(data), size), kPiecesEnd, "fuzz");
  if (!journal) {
    for (const Error& error : journal.errors()) Check(error.file == "fuzz", "an error names the journal");
    return 0;
  }
  for (const ShardChange& change : journal->shards) CheckShard(change);
  for (const Replacement& replacement : journal->replacements) CheckName(replacement.name);
  const std::string text = JournalJson(*journal);
  const auto again = ParseJournal(text, kPiecesEnd, "again");
  Check(again.ok(), "a written journal is accepted");
  Check(JournalJson(*again) == text, "writing is stable");
  return 0;
}
