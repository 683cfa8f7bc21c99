// Runs the operations of a converter on logical weights, in either direction.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "layout/logical_weight.h"
#include "layout/shared_scales.h"
#include "mapping/transform.h"
#include "plan/groups.h"

namespace quantport {

// One weight on its way through a chain of operations.
struct Entry {
  LogicalWeight weight;
  std::optional<ExpertPiece> piece;  // set while a weight is one expert of a stacked parameter stored expanded
  std::optional<uint64_t> index;     // which of a list, once experts are apart
  std::optional<size_t> unit;        // the one unit it is made of, where it is one's own
};

// What a converter holds between two operations: for each of its patterns a weight, or a list of them.
using Strands = std::vector<std::vector<Entry>>;

struct OperationContext {
  const std::vector<std::string>* sources = nullptr;  // patterns of the strands at the start
  const std::vector<std::string>* targets = nullptr;  // patterns of the results
  // The logical shape of each target where it is known: from the reference when reverting.
  std::vector<const std::vector<uint64_t>*> target_shapes;
  bool loading = false;  // hub to in-memory names
  SharedScales* shared = nullptr;
};

// Applies `operations` in order. Errors: kQuantConversionUnsupported naming the operation.
Result<Strands> RunOperations(Strands strands, const std::vector<Operation>& operations,
                              const OperationContext& context);

}  // namespace quantport
