#include "plan/assemble.h"

#include <fmt/format.h>

#include <algorithm>

namespace quantport {
namespace {

Error Unsupported(std::string message) {
  return Error{ErrorKind::kQuantConversionUnsupported, std::move(message), {}, {}, {}};
}

}  // namespace

Result<LogicalWeight> AssembleExperts(const std::vector<Entry>& pieces, SharedScales* shared) {
  const uint64_t parts = pieces[0].piece->parts;
  if (pieces.size() % parts != 0) return Unsupported("some expert lacks a part of the stacked tensor");
  const uint64_t experts = pieces.size() / parts;
  std::vector<const LogicalWeight*> places(pieces.size());
  for (const Entry& entry : pieces) {
    const ExpertPiece& piece = *entry.piece;
    const uint64_t place = piece.index * parts + piece.part;
    if (piece.parts != parts || piece.index >= experts || places[place] != nullptr)
      return Unsupported(fmt::format("the experts are not numbered from 0 to {}, each once", experts - 1));
    places[place] = &entry.weight;
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
