// The part of a journal that says what its pieces are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "journal/journal.h"

namespace quantport {

// More than a million extents; a longer text is not one of ours. Parsed it takes up to 16 times as much memory.
inline constexpr uint64_t kMaxJournalJson = 1 << 26;

std::string JournalJson(const Journal& journal);

// `pieces_end`: pieces end before it. Errors: kUnfinishedChange naming `file` where a name is a path, a piece lies
// outside the journal, or sizes contradict each other.
Result<Journal> ParseJournal(std::string_view text, uint64_t pieces_end, std::string_view file);

}  // namespace quantport
