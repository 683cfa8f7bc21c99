// Carries out a plan on the checkpoint's own files: new headers over data that stays where it is.
//
// A file is changed where it lies, or a new one is staged and takes its place. All of it is one transaction: staged
// files and a journal are on the disk before anything changes, and until Retire everything can be taken back.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "exec/copy.h"
#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

enum class ChangeMethod {
  kUntouched,    // it is as it should be
  kHeader,       // the new header fits where the old one was
  kInserted,     // blocks were put in at the start for a longer header
  kCloned,       // a new file that shares the old one's blocks
  kCopied,       // a new file
  kRemoved,      // all of its tensors are in other files now
  kConfigWrite,  // a file that holds no tensors, written anew
};

// "untouched", "header", "inserted", "cloned", "copied", "removed", "config".
std::string_view ChangeMethodName(ChangeMethod method);

struct FileChange {
  std::string name;
  ChangeMethod method = ChangeMethod::kUntouched;
  std::string reason;  // with kCopied: why it could not be changed where it lies
};

struct InPlaceInput {
  const Plan* plan = nullptr;                // with data that stays, made with PlanOptions::keep_header_room
  std::vector<std::string> shards;           // of the checkpoint as it is
  std::map<std::string, std::string> texts;  // files that hold no tensors and are to change: name -> new content
  uint64_t block_bytes = 0;
  bool may_clone = true;
  bool detach_links = false;  // files that are links, or have other names, are replaced; else they are refused
};

// Which files would change, and how. Errors: kLinkedFile for every file that is one, kOutputExists where a new file has
// the name of one that is no shard.
Result<std::vector<FileChange>> ChooseChanges(const InPlaceInput& input, const OutputFolder& folder);

// Stages what is to take other files' places and publishes the journal; when it returns, nothing of the checkpoint has
// changed yet, and Redo (journal/replay.h) changes it. Requires the folder's lock. On errors nothing is left behind.
// Reports what WriteFiles did. Errors: kIo, kCancelled.
Result<ExecReport> Stage(const InPlaceInput& input, const std::vector<FileChange>& changes, OutputFolder* folder,
                         const ExecOptions& options);

// Redo, `check` of the changed folder, and Retire. Where one of the first two fails or memory runs out, Undo and
// Retire, so that the folder is as it was. Where taking back fails too, the journal stays and the errors say so.
Status ApplyJournal(OutputFolder* folder, const std::atomic<bool>* cancel, const std::function<Status()>& check);

}  // namespace quantport
