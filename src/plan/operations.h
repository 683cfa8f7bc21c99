// Runs the reversed operations of a converter on logical weights.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "layout/logical_weight.h"
#include "mapping/transform.h"
#include "plan/groups.h"

namespace quantport {

// One weight on its way through a chain of operations.
struct Entry {
  LogicalWeight weight;
  std::optional<ExpertPiece> piece;  // set while a weight is one expert of a stacked parameter stored expanded
  std::optional<uint64_t> index;     // which of a list, once experts are apart
};

// What a converter holds between two operations: for each of its patterns a weight, or a list of them.
using Strands = std::vector<std::vector<Entry>>;

// Applies `operations` in order. `hub_shape`: the logical shape of the one hub tensor that comes out, where a reference
// tells it. `targets` is the number of hub patterns; where an operation makes several strands of
// one, it makes as many.
// Errors: kQuantConversionUnsupported naming the operation.
Result<Strands> RunOperations(Strands strands, const std::vector<Operation>& operations, size_t targets,
                              const std::vector<uint64_t>* hub_shape, std::vector<EqualBytes>* checks);

}  // namespace quantport
