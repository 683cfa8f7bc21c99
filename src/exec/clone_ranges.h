// Gives an output file the blocks that its sources have already, where the file system can share them.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "exec/sources.h"
#include "io/output_folder.h"
#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

enum class CloneMode : uint8_t {
  kNever,
  kAuto,    // where the file system can; else bytes are copied
  kAlways,  // a file system that can't is an error; what is not aligned is copied
};

class Cloner {
 public:
  explicit Cloner(CloneMode mode) : mode_(mode) {}

  // Clones the whole blocks of every straight range, of an empty file that has its size already. `ranges` are in the
  // order of the target. Returns what is left to be written, in that order; all but the file's end begins and ends
  // with a block of at least kDirectBlock bytes. Errors: kIo.
  Result<std::vector<Stretch>> Clone(std::span<const CopyRange> ranges, const Sources& sources, OutputFile* target,
                                     uint64_t target_bytes);

  uint64_t cloned_bytes() const { return cloned_bytes_; }

 private:
  // False where the range is to be copied.
  Result<bool> CloneInside(const Stretch& inside, const CopyRange& range, const Sources& sources, OutputFile* target);

  CloneMode mode_;
  std::set<uint32_t> refused_;  // sources that can't share with the current target
  uint64_t cloned_bytes_ = 0;
};

}  // namespace quantport
