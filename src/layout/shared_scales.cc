#include "layout/shared_scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace quantport {
namespace {

Error Unsupported(std::string message) {
  return Error{ErrorKind::kQuantConversionUnsupported, std::move(message), {}, {}, {}};
}

// How a scalar may be merged: with what it is multiplied when the weight is used.
struct MergeRule {
  bool reciprocal = false;
  std::optional<size_t> rescaled;  // the part whose elements are re-expressed; none for activations
  ScaleStep::Kind kind = ScaleStep::Kind::kValues;
};

std::optional<size_t> PartIndex(const LogicalWeight& weight, std::string_view leaf) {
  for (size_t i = 0; i < weight.parts.size(); ++i) {
    if (weight.parts[i].leaf == leaf) return i;
  }
  return std::nullopt;
}

bool IsRounded(DType dtype) { return dtype == DType::kF8E4M3 || dtype == DType::kI8; }

// formats.md of the producers: NVFP4's weight_scale_2 (compressed-tensors: 1 / weight_global_scale) multiplies the
// block scales, a scalar weight_scale the values. Activation scales only bound what the runtime quantizes.
std::optional<MergeRule> FindRule(const LogicalWeight& weight, std::string_view leaf) {
  if (leaf == "input_scale" || leaf == "activation_scale") return MergeRule{};
  if (leaf == "input_global_scale") return MergeRule{true, std::nullopt, ScaleStep::Kind::kValues};
  if (leaf == "weight_scale_2" || leaf == "weight_global_scale") {
    const auto blocks = PartIndex(weight, "weight_scale");
    const bool reciprocal = leaf == "weight_global_scale";
    if (blocks && weight.parts[*blocks].array.dtype == DType::kF8E4M3)
      return MergeRule{reciprocal, blocks, ScaleStep::Kind::kBlockScales};
    // W4A8_AWQ: the second stage rounds what the first gives, at run time.
    return MergeRule{reciprocal, std::nullopt, ScaleStep::Kind::kValues};
  }
  // Under a zero point, which is in units of the old scale, codes are no multiples of the scale.
  const bool centered = weight.Find("weight_zero_point") == nullptr;
  if ((leaf == "weight_scale" || leaf == "weight_scale_inv") && centered && IsRounded(weight.parts[0].array.dtype))
    return MergeRule{false, 0, ScaleStep::Kind::kValues};
  return std::nullopt;
}

// One entry of a tensor that has one for each expert, or the tensor itself. `axis`: of the expert dimension.
Array EntryOf(const Array& array, const std::optional<Axis>& axis, uint64_t entry) {
  return axis ? Slice(array, axis->dim, entry, 1) : array;
}

bool HasStep(const Array& array) {
  return std::any_of(array.blocks.begin(), array.blocks.end(), [](const Block& block) { return block.step != 0; });
}

uint64_t Elements(const Array& array) {
  uint64_t count = 1;
  for (const uint64_t size : array.shape) count *= size;
  return count;
}

uint32_t AddStep(ScaleStep step, SharedScales* shared) {
  shared->steps.push_back(step);
  return static_cast<uint32_t>(shared->steps.size());
}

class Merger {
 public:
  Merger(const std::vector<LogicalWeight>& weights, size_t part, size_t dim, MergeRule rule, SharedScales* shared,
         LogicalWeight* joined)
      : weights_(weights), part_(part), dim_(dim), rule_(rule), shared_(shared), joined_(joined) {}

  Status Run() {
    const StoredPart& scalar = weights_[0].parts[part_];
    // Experts side by side have a scalar each; every other scale is one number here.
    const bool experts = dim_ != 0 && !scalar.axes.empty() && scalar.axes[0].has_value();
    const std::optional<Axis> axis = experts ? scalar.axes[0] : std::nullopt;
    const uint64_t entries = axis ? scalar.array.shape[axis->dim] : 1;
    if (Elements(scalar.array) != entries)
      return Unsupported(
          fmt::format("{} is no scalar: rows and columns can't be re-expressed under a common scale "
                      "without quantizing the weight again",
                      scalar.leaf));
    if (rule_.rescaled && !LiesApart(weights_[0].parts[*rule_.rescaled], axis.has_value()))
      return Unsupported(fmt::format("{} is one for all that are joined: what lies under {} can't be re-expressed",
                                     weights_[0].parts[*rule_.rescaled].leaf, scalar.leaf));
    if (entries == 0) return {};  // stacks without experts
    if (AnyMerged())
      return Unsupported(fmt::format("{} was merged before: weights are put together twice", scalar.leaf));
    std::vector<Array> merged;
    std::vector<Array> rescaled;
    for (uint64_t e = 0; e < entries; ++e) {
      AddMerge(axis, e);
      const auto merge = static_cast<uint32_t>(shared_->merges.size() - 1);
      merged.push_back(
          WithStep(shared_->merges.back().scalars[0], AddStep({ScaleStep::Kind::kMerged, merge, 0}, shared_)));
      if (rule_.rescaled) rescaled.push_back(Rescaled(axis, e, merge));
    }
    StoredPart& out = joined_->parts[part_];
    out.array = axis ? Concatenate(merged, axis->dim) : merged[0];
    if (rule_.rescaled) {
      StoredPart& target = joined_->parts[*rule_.rescaled];
      target.array = axis ? Concatenate(rescaled, target.axes[0]->dim) : rescaled[0];
    }
    return {};
  }

 private:
  // Whether each weight, and each expert where these have scalars of their own, has elements of the part for itself.
  bool LiesApart(const StoredPart& part, bool experts) const {
    return part.axes[dim_].has_value() && (!experts || part.axes[0].has_value());
  }

  // A block has one step at most; a second one would take the place of the first.
  bool AnyMerged() const {
    return std::any_of(weights_.begin(), weights_.end(), [&](const LogicalWeight& weight) {
      return HasStep(weight.parts[part_].array) || (rule_.rescaled && HasStep(weight.parts[*rule_.rescaled].array));
    });
  }

  void AddMerge(const std::optional<Axis>& axis, uint64_t entry) {
    ScaleMerge merge{weights_[0].parts[part_].leaf, rule_.reciprocal, {}};
    for (const LogicalWeight& weight : weights_)
      merge.scalars.push_back(EntryOf(weight.parts[part_].array, axis, entry));
    shared_->merges.push_back(std::move(merge));
  }

  // The re-expressed part of all weights, of one expert where they have scalars of their own.
  Array Rescaled(const std::optional<Axis>& axis, uint64_t entry, uint32_t merge) {
    std::vector<Array> arrays;
    for (uint32_t i = 0; i < weights_.size(); ++i) {
      const StoredPart& part = weights_[i].parts[*rule_.rescaled];
      Array array = axis ? Slice(part.array, part.axes[0]->dim, entry, 1) : part.array;
      arrays.push_back(WithStep(std::move(array), AddStep({rule_.kind, merge, i}, shared_)));
    }
    return Concatenate(arrays, weights_[0].parts[*rule_.rescaled].axes[dim_]->dim);
  }

  const std::vector<LogicalWeight>& weights_;
  size_t part_;
  size_t dim_;
  MergeRule rule_;
  SharedScales* shared_;
  LogicalWeight* joined_;
};

}  // namespace

Status ShareScale(const std::vector<LogicalWeight>& weights, size_t part, size_t dim, SharedScales* shared,
                  LogicalWeight* joined) {
  const StoredPart& first = weights[0].parts[part];
  for (const LogicalWeight& weight : weights) {
    if (weight.parts[part].array.shape != first.array.shape)
      return Unsupported(fmt::format("Concatenate of weights whose {} differ in shape", first.leaf));
  }
  if (shared->merge_max) {
    if (const auto rule = FindRule(weights[0], first.leaf))
      return Merger(weights, part, dim, *rule, shared, joined).Run();
  }
  for (size_t i = 1; i < weights.size(); ++i) {
    shared->checks.push_back({first.leaf, first.array, weights[i].parts[part].array});
  }
  return {};
}

Status MergeApart(const std::vector<LogicalWeight*>& weights, std::string_view leaf, SharedScales* shared) {
  const auto rule = FindRule(*weights[0], leaf);
  if (!rule || !rule->rescaled) return Unsupported(fmt::format("nothing can be re-expressed under another {}", leaf));
  const std::string rescaled = weights[0]->parts[*rule->rescaled].leaf;
  const auto part = [](LogicalWeight* weight, std::string_view name) -> StoredPart& {
    return weight->parts[*PartIndex(*weight, name)];
  };
  // Experts in one tensor have a scalar each.
  const StoredPart& first = part(weights[0], leaf);
  const std::optional<Axis> axis = first.axes.empty() ? std::nullopt : first.axes[0];
  const uint64_t entries = axis ? first.array.shape[axis->dim] : 1;
  if (Elements(first.array) != entries) return Unsupported(fmt::format("{} is no scalar", leaf));
  std::vector<std::vector<Array>> scalars(weights.size());
  std::vector<std::vector<Array>> codes(weights.size());
  for (uint64_t e = 0; e < entries; ++e) {
    ScaleMerge merge{std::string(leaf), rule->reciprocal, {}};
    for (LogicalWeight* weight : weights) merge.scalars.push_back(EntryOf(part(weight, leaf).array, axis, e));
    const auto number = static_cast<uint32_t>(shared->merges.size());
    shared->merges.push_back(merge);
    for (uint32_t i = 0; i < weights.size(); ++i) {
      const StoredPart& own = part(weights[i], rescaled);
      if (axis && !own.axes[0]) return Unsupported(fmt::format("{} is one for all experts", rescaled));
      scalars[i].push_back(
          WithStep(std::move(merge.scalars[i]), AddStep({ScaleStep::Kind::kMerged, number, i}, shared)));
      codes[i].push_back(WithStep(axis ? Slice(own.array, own.axes[0]->dim, e, 1) : own.array,
                                  AddStep({rule->kind, number, i}, shared)));
    }
  }
  for (size_t i = 0; i < weights.size() && entries > 0; ++i) {
    StoredPart& scalar = part(weights[i], leaf);
    StoredPart& own = part(weights[i], rescaled);
    scalar.array = axis ? Concatenate(scalars[i], axis->dim) : std::move(scalars[i][0]);
    own.array = axis ? Concatenate(codes[i], own.axes[0]->dim) : std::move(codes[i][0]);
  }
  return {};
}

}  // namespace quantport
