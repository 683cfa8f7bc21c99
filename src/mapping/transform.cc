#include "mapping/transform.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace quantport {
namespace {

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace

std::string_view OperationName(const Operation& operation) {
  static constexpr std::array<std::string_view, std::variant_size_v<Operation>> kNames = {
      "Chunk",
      "Concatenate",
      "Split",
      "MergeModulelist",
      "SplitModulelist",
      "Transpose",
      "Interleave",
      "PermuteForRope",
      "Conv3dToLinear",
      "LinearToConv3d",
      "ErnieFuseAndSplitTextVisionExperts",
      "ErnieSplitAndDecoupleTextVisionExperts",
      "Inkling2UnpadVocab",
      "Inkling2LoopDequantizeExperts",
      "Inkling2LoopMergeMessageQueries"};
  return kNames[operation.index()];
}

Operation ReverseOperation(const Operation& operation) {
  return std::visit(Overloaded{
                        [](const ChunkOp& op) -> Operation {
                          return ConcatenateOp{op.dim, op.num_shards_attribute, op.num_shards};
                        },
                        [](const ConcatenateOp& op) -> Operation {
                          return ChunkOp{op.dim, op.num_shards_attribute, op.num_shards};
                        },
                        [](const SplitOp& op) -> Operation {
                          return ConcatenateOp{op.dim, std::nullopt};
                        },
                        [](const MergeModulelistOp& op) -> Operation { return SplitModulelistOp{op.dim}; },
                        [](const SplitModulelistOp& op) -> Operation { return MergeModulelistOp{op.dim}; },
                        [](const TransposeOp& op) -> Operation {
                          return TransposeOp{op.dim1, op.dim0, op.check_dims, op.hidden_size};
                        },
                        [](const InterleaveOp& op) -> Operation {
                          return InterleaveOp{op.dim, !op.inverse};
                        },
                        [](const PermuteForRopeOp& op) -> Operation {
                          return PermuteForRopeOp{op.subconfig_key, op.permute_layer_names, !op.inverse, op.num_heads};
                        },
                        [](const Conv3dToLinearOp& op) -> Operation {
                          return LinearToConv3dOp{op.in_channels, op.kernel_size};
                        },
                        [](const LinearToConv3dOp& op) -> Operation {
                          return Conv3dToLinearOp{op.in_channels, op.kernel_size};
                        },
                        [](const ErnieFuseAndSplitOp& op) -> Operation {
                          return ErnieSplitAndDecoupleOp{op.stack_dim, op.concat_dim};
                        },
                        [](const ErnieSplitAndDecoupleOp& op) -> Operation {
                          return ErnieFuseAndSplitOp{op.stack_dim, op.concat_dim};
                        },
                        [](const Inkling2UnpadVocabOp& op) -> Operation {
                          return Inkling2UnpadVocabOp{!op.inverse, op.vocab_size, op.unpadded_vocab_size};
                        },
                        [](const Inkling2LoopDequantizeExpertsOp& op) -> Operation { return op; },
                        [](const Inkling2LoopMergeMessageQueriesOp& op) -> Operation {
                          return Inkling2LoopMergeMessageQueriesOp{!op.inverse};
                        },
                    },
                    operation);
}

std::string_view TransformKindName(TransformKind kind) {
  switch (kind) {
    case TransformKind::kWeightRenaming:
      return "WeightRenaming";
    case TransformKind::kGroupWeightRename:
      return "GroupWeightRename";
    case TransformKind::kPrefixChange:
      return "PrefixChange";
    case TransformKind::kIndexOffsetRename:
      return "Inkling2IndexOffsetWeightRename";
    case TransformKind::kLayerPairCollapse:
      return "LayerPairCollapse";
    case TransformKind::kWeightConverter:
      return "WeightConverter";
  }
  return "";
}

Transform MakePrefixChange(std::optional<std::string> add, std::optional<std::string> remove,
                           std::string model_prefix) {
  Transform transform;
  transform.kind = TransformKind::kPrefixChange;
  const std::string prefix = model_prefix.empty() ? "" : model_prefix + "\\.";
  if (add) {
    // The look-ahead keeps a prefix that is there already from being added again.
    transform.source_patterns = {fmt::format("^{}(?:(?!{}\\.))(.+)$", prefix, *add)};
    transform.target_patterns = {fmt::format("{}{}\\.\\1", prefix, *add)};
  } else {
    transform.source_patterns = {fmt::format("^{}{}\\.(.+)$", prefix, remove.value_or(""))};
    transform.target_patterns = {prefix + "\\1"};
  }
  transform.prefix_to_add = std::move(add);
  transform.prefix_to_remove = std::move(remove);
  transform.model_prefix = std::move(model_prefix);
  return transform;
}

Transform ReverseTransform(const Transform& transform) {
  if (transform.kind == TransformKind::kLayerPairCollapse) return transform;
  Transform reversed;
  if (transform.kind == TransformKind::kPrefixChange) {
    reversed = MakePrefixChange(transform.prefix_to_remove, transform.prefix_to_add, transform.model_prefix);
  } else {
    reversed.kind = transform.kind;
    reversed.source_patterns = transform.target_patterns;
    reversed.target_patterns = transform.source_patterns;
  }
  reversed.rules = transform.rules;
  reversed.offset = -transform.offset;
  if (transform.kind == TransformKind::kGroupWeightRename) {
    // The guard is the pair whose source sorts first; swapping sides changes which pair that is.
    std::vector<std::pair<std::string, std::string>> pairs;
    for (size_t i = 0; i < reversed.source_patterns.size(); ++i) {
      pairs.emplace_back(reversed.source_patterns[i], reversed.target_patterns[i]);
    }
    std::sort(pairs.begin(), pairs.end());
    for (size_t i = 0; i < pairs.size(); ++i) {
      reversed.source_patterns[i] = pairs[i].first;
      reversed.target_patterns[i] = pairs[i].second;
    }
  }
  for (auto it = transform.operations.rbegin(); it != transform.operations.rend(); ++it) {
    reversed.operations.push_back(ReverseOperation(*it));
  }
  reversed.scope_prefix = transform.scope_prefix;
  reversed.base_model_prefix = transform.base_model_prefix;
  return reversed;
}

std::string DescribeTransform(const Transform& transform) {
  std::string text =
      fmt::format("{} {} -> {}", TransformKindName(transform.kind), fmt::join(transform.source_patterns, ", "),
                  fmt::join(transform.target_patterns, ", "));
  if (transform.offset != 0) text += fmt::format(" [\\1 {:+}]", transform.offset);
  if (!transform.operations.empty()) {
    std::vector<std::string_view> names;
    for (const Operation& operation : transform.operations) names.push_back(OperationName(operation));
    text += fmt::format(" [{}]", fmt::join(names, ", "));
  }
  if (transform.scope_prefix && !transform.scope_prefix->empty())
    text += fmt::format(" (below {})", *transform.scope_prefix);
  return text;
}

}  // namespace quantport
