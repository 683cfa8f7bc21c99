#include "plan/reference_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"

namespace quantport {
namespace {

// Bare parameters that transformers' expert containers have; an index tells no shapes to know them by.
constexpr std::array<std::string_view, 4> kExpertParameters = {"gate_up_proj", "gate_proj", "up_proj", "down_proj"};

bool HasKey(const ReferenceView& reference, const std::string& key) {
  return std::binary_search(reference.keys.begin(), reference.keys.end(), key);
}

}  // namespace

StackedExperts::StackedExperts(const ReferenceView& reference) : reference_(reference) {
  for (const std::string& key : reference.keys) {
    if (std::string container = ContainerOfStacked(key); !container.empty()) containers_.insert(std::move(container));
  }
}

std::string StackedExperts::ContainerOfStacked(const std::string& key) const {
  const auto shape = reference_.logical_shapes.find(key);
  const auto [module, leaf] = SplitLeaf(key);
  const bool bare = std::find(kExpertParameters.begin(), kExpertParameters.end(), leaf) != kExpertParameters.end();
  const bool stacked =
      shape == reference_.logical_shapes.end() ? bare : shape->second.size() == 3 && (bare || leaf == "weight");
  if (!stacked) return {};
  return std::string(leaf == "weight" ? SplitLeaf(module).module : module);
}

std::string StackedExperts::ContainerOf(std::string_view key) const {
  const auto [container, number] = SplitLeaf(SplitLeaf(SplitLeaf(key).module).module);
  if (!IsDigits(number)) return {};
  std::string path(container);
  if (containers_.contains(path)) return path;
  // GraniteMoe's hub has no module of its own for the experts: block_sparse_moe.input_linear, in memory
  // block_sparse_moe.experts.gate_up_proj.
  const auto [parent, leaf] = SplitLeaf(container);
  return leaf == "experts" && containers_.contains(std::string(parent)) ? std::string(parent) : std::string();
}

Errors CheckAgainstReference(const ReferenceView& reference, const std::vector<std::string>& tied_weights,
                             Conversion* conversion) {
  const StackedExperts stacked(reference);
  Errors errors;
  std::set<std::string> produced;
  std::set<std::string> expanded;
  for (const ConvertedWeight& weight : conversion->weights) {
    produced.insert(weight.key);
    if (!HasKey(reference, weight.key)) {
      const std::string container = stacked.ContainerOf(weight.key);
      if (!container.empty()) expanded.insert(container);
      const bool tied = std::find(tied_weights.begin(), tied_weights.end(), weight.source_key) != tied_weights.end();
      if (tied || weight.role == UnitRole::kBias || !container.empty()) continue;
      errors.push_back({ErrorKind::kReferenceMismatch,
                        "the reference has no tensor of this name",
                        {},
                        weight.key,
                        "is it the checkpoint this export was made from?"});
      continue;
    }
    const auto shape = reference.logical_shapes.find(weight.key);
    if (shape == reference.logical_shapes.end() || weight.format == FormatId::kUnrecognized ||
        shape->second == weight.shape)
      continue;
    errors.push_back({ErrorKind::kReferenceMismatch,
                      fmt::format("the logical shape is [{}], the reference's [{}]", fmt::join(weight.shape, ", "),
                                  fmt::join(shape->second, ", ")),
                      {},
                      weight.key,
                      "is it the checkpoint this export was made from?"});
  }
  for (const std::string& key : reference.keys) {
    if (!produced.contains(key) && !expanded.contains(stacked.ContainerOfStacked(key)))
      conversion->only_in_reference.push_back(key);
  }
  return errors;
}

}  // namespace quantport
