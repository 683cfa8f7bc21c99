// Picks the elements of a strided array out of its source files, with bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "exec/merged_scales.h"
#include "exec/sources.h"
#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

// Fills `out` with bytes [begin, begin + out.size()) of the array. `tensors` and `sources` are the plan's; `scales`
// carries out the steps of its blocks. Memory: as much again as `out`. Requires elements of whole bytes.
// Errors: kIo.
Status Gather(const Array& array, std::span<const SourceTensor> tensors, const Sources& sources, MergedScales* scales,
              uint64_t begin, std::span<std::byte> out);

}  // namespace quantport
