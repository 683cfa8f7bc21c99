// How far inserting blocks at the start of a file has come, from where its old blocks are now.
#pragma once

#include <cstdint>

#include "io/output_folder.h"
#include "journal/journal.h"
#include "quantport/error.h"

namespace quantport {

// Blocks move from the last to the first when they are inserted, and from the first to the last when they are taken
// out. So at any instant the old blocks before one place of the file are where they were, and those behind it are
// `ShardChange::inserted` further; between them is the gap.
struct BlockShift {
  bool begun = false;  // false: the file has its old size, and nothing has moved
  uint64_t gap = 0;    // offset; 0: everything has moved
};

// Errors: kUnfinishedChange where the file is neither the old one nor on the way, kIo.
Result<BlockShift> FindShift(const OutputFile& file, const ShardChange& change, const JournalReader& journal);

// Makes the gap 0. What is at the start of the file then is to be written.
Status FinishShift(OutputFile* file, const ShardChange& change, const JournalReader& journal);

// Closes the gap and gives the file its old size. What is at its start then is to be written.
Status UndoShift(OutputFile* file, const ShardChange& change, const JournalReader& journal);

}  // namespace quantport
