#include "plan/assemble.h"

#include <utility>

namespace quantport {
Result<LogicalWeight> AssembleExperts(const std::vector<Entry>& pieces, SharedScales* shared) {
  const uint64_t parts = pieces[0].piece->parts;
  const uint64_t experts = pieces.size() / parts;
  std::vector<const LogicalWeight*> places(pieces.size());
  for (const Entry& entry : pieces) {
    places.at(entry.piece->index * parts + entry.piece->part) = &entry.weight;
  }
  std::vector<LogicalWeight> stack;
  for (uint64_t e = 0; e < experts; ++e) {
    std::vector<LogicalWeight> sides;
    for (uint64_t p = 0; p < parts; ++p) sides.push_back(*places[e * parts + p]);
    auto whole = parts == 1 ? Result<LogicalWeight>(std::move(sides[0])) : ConcatenateWeights(sides, 0, shared);
    if (!whole) return whole.errors();
    stack.push_back(std::move(*whole));
  }
  return StackWeights(stack, 0);
}

}  // namespace quantport
