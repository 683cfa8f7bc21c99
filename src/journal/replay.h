// Carries out what a journal says, or takes it back, from wherever an interruption left it.
#pragma once

#include <atomic>

#include "io/output_folder.h"
#include "journal/journal.h"
#include "quantport/error.h"

namespace quantport {

// Both may be interrupted anywhere and called again, the one after the other too: every step finds out what has been
// done. A shard is unreadable, its header's length being 0, from the first change to the last (docs/durability.md).
// Errors: kIo, kUnfinishedChange where a file is not one that an interruption leaves, kLinkedFile where one has other
// names, kCancelled between two files.
Status Redo(const JournalReader& journal, OutputFolder* folder, const std::atomic<bool>* cancel = nullptr);
Status Undo(const JournalReader& journal, OutputFolder* folder);

// Ends the change, done or undone: removes the journal and what was staged.
Status Retire(OutputFolder* folder);

}  // namespace quantport
