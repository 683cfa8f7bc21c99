// The bytes of a planned output file, produced from the sources.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "exec/merged_scales.h"
#include "io/file.h"
#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

class OutputBytes {
 public:
  // All must outlive this; `scales` may be null where the plan has no steps.
  OutputBytes(const Plan& plan, const PlannedFile& file, std::span<const File> sources, MergedScales* scales);

  // Fills `out` with the file's bytes from `begin` on, header included. Memory: as Gather's. Errors: kIo.
  Status Fill(uint64_t begin, std::span<std::byte> out) const;

 private:
  Status FillGathered(uint64_t begin, std::span<std::byte> out) const;

  const Plan& plan_;
  const PlannedFile& file_;
  const std::span<const File> sources_;
  MergedScales* const scales_;
  std::vector<CopyRange> ranges_;
  std::vector<const PlannedTensor*> gathered_;
};

}  // namespace quantport
