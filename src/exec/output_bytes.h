// The bytes of a planned output file, produced from the sources.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "exec/merged_scales.h"
#include "exec/sources.h"
#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

// Safe in several threads.
class OutputBytes {
 public:
  // Puts bytes [from, from + bytes) of a source, an index into Plan::sources, at `at` of what is being filled.
  using ReadSource = std::function<Status(uint32_t source, uint64_t from, uint64_t at, uint64_t bytes)>;

  // All must outlive this; `scales` may be null where the plan has no steps.
  OutputBytes(const Plan& plan, const PlannedFile& file, const Sources& sources, MergedScales* scales);

  // Fills `out` with the file's bytes from `begin` on, header included, and with zeros for computed tensors; straight
  // copies come through `read`. Memory: as Gather's. Errors: kIo.
  Status Fill(uint64_t begin, std::span<std::byte> out, const ReadSource& read) const;
  // The same with plain reads.
  Status Fill(uint64_t begin, std::span<std::byte> out) const;

  // The straight copies, in the order of the file.
  std::span<const CopyRange> ranges() const { return ranges_; }

 private:
  Status FillGathered(uint64_t begin, std::span<std::byte> out) const;

  const Plan& plan_;
  const PlannedFile& file_;
  const Sources& sources_;
  MergedScales* const scales_;
  std::vector<CopyRange> ranges_;
  std::vector<Stretch> computed_;
  std::vector<const PlannedTensor*> gathered_;  // in the order of the file
};

}  // namespace quantport
