// Differences between the files of two checkpoints that hold no tensors.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "diff/compare.h"
#include "quantport/quantport.h"

namespace quantport {

// A checkpoint's files beside its shards and index. `rewritten` holds the text of those that are not taken as stored.
struct Sidecars {
  const Checkpoint& checkpoint;
  const std::map<std::string, std::string>& rewritten;
};

struct SidecarDiff {
  uint64_t equal = 0;
  std::vector<FileDiff> files;  // in the order of file names
};

// JSON files are compared value by value, others and those of more than 16 MiB by their bytes. Errors: kIo, kCancelled.
Result<SidecarDiff> CompareSidecars(const Sidecars& a, const Sidecars& b, const WorkOptions& options);

}  // namespace quantport
