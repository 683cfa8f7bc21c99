#include "layout/layouts.h"

#include <absl/container/inlined_vector.h>
#include <fmt/format.h>

#include <utility>

#include "format/forms.h"

namespace quantport {
namespace {

absl::InlinedVector<StoredLeaf, 8> LeavesOf(const LogicalWeight& weight) {
  absl::InlinedVector<StoredLeaf, 8> leaves;
  for (const StoredPart& part : weight.parts) {
    const uint32_t tensor = part.array.blocks.empty() ? 0 : part.array.blocks[0].tensor;
    leaves.push_back({part.leaf, part.array.dtype, part.array.shape, tensor});
  }
  return leaves;
}

}  // namespace

void FillLayout(LogicalWeight* weight, std::string_view key, const RecognizeOptions& options, PartsMemo* memo) {
  const auto leaves = LeavesOf(*weight);
  Match match = MatchFormat({key, leaves, options}, memo);
  weight->format = match.format;
  weight->shape = std::move(match.shape);
  weight->variant = match.variant;
  if (match.format == FormatId::kUnrecognized) {
    weight->misfit = std::make_shared<const Misfit>(std::move(match.misfit));
    for (StoredPart& part : weight->parts) part.axes.assign(weight->shape.size(), std::nullopt);
    return;
  }
  for (size_t i = 0; i < weight->parts.size(); ++i) {
    StoredPart& part = weight->parts[i];
    part.role = match.parts[i].role;
    part.axes = std::move(match.parts[i].axes);
    part.restate = std::move(match.parts[i].restate);
  }
}

void AddStray(std::string_view leaf, LogicalWeight* weight) {
  Misfit misfit = weight->misfit ? *weight->misfit : Misfit{weight->format, {}};
  const std::string text = misfit.nearest == FormatId::kUnrecognized
                               ? fmt::format("{} stands beside them", leaf)
                               : fmt::format("{} is no tensor of {}", leaf, FormatName(misfit.nearest));
  misfit.text = misfit.text.empty() ? text : fmt::format("{}; {}", misfit.text, text);
  weight->misfit = std::make_shared<const Misfit>(std::move(misfit));
  weight->format = FormatId::kUnrecognized;
  weight->shape = weight->parts[0].array.shape;
  for (StoredPart& part : weight->parts) {
    part.axes.assign(weight->shape.size(), std::nullopt);
    part.restate = nullptr;
  }
}

void FillPlainLayout(LogicalWeight* weight) {
  weight->format = FormatId::kPlain;
  weight->shape = weight->parts[0].array.shape;
  weight->parts[0].axes = SameDims(weight->shape.size());
}

std::optional<std::string> MissingCompanion(const LogicalWeight& weight, std::string_view key,
                                            const RecognizeOptions& options) {
  const auto leaves = LeavesOf(weight);
  return MissingPart({key, leaves, options});
}

}  // namespace quantport
