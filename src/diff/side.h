// One side of a comparison: a checkpoint as it is stored, or as a reversal would write it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "diff/compare.h"
#include "quantport/quantport.h"

namespace quantport {

struct SideTensor {
  std::string name;
  TensorForm form;
  uint64_t bytes = 0;
  std::string shard;              // the file it is in, or would be
  std::vector<FileRange> ranges;  // where its bytes are, in order; `file` counts Side::files
  bool located = true;            // the ranges make up all of it
};

struct Side {
  std::shared_ptr<const Folder> folder;
  std::vector<std::string> files;              // shards
  std::vector<SideTensor> tensors;             // in the order of their bytes
  std::map<std::string, std::string> configs;  // files that would be written anew, with their text
};

Side StoredSide(const Checkpoint& checkpoint);
// The plan is used up.
Side PlannedSide(const Checkpoint& checkpoint, PlanReport plan);

struct Sides {
  Side a;
  Side b;
  std::vector<std::string> notes;
};

// Plans the side with in-memory names as a reversal to the other side's names would write it. Tried are A guided by B,
// B guided by A, and each by the rules alone; taken is the first that gives more common names than there are already.
// Errors: those of the first attempt, where no attempt gave a plan.
Result<Sides> MapSides(const Checkpoint& a, const Checkpoint& b, const MappingOptions& mapping);

}  // namespace quantport
