// The conversion mapping of transformers as types: what its WeightRenaming, GroupWeightRename, PrefixChange and
// WeightConverter say, without executing anything. Source: transformers' core_model_loading.py.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "quantport/error.h"

namespace quantport {

// Operations of a WeightConverter. Dimensions count those of the in-memory tensor of the step they act on.
struct ChunkOp {
  int dim = 0;
  std::optional<std::string> num_shards_attribute;  // config field that holds the number of parts
  std::optional<uint64_t> num_shards = {};          // what the config says there
};
struct ConcatenateOp {
  int dim = 0;
  std::optional<std::string> num_shards_attribute;
  std::optional<uint64_t> num_shards = {};
};
struct MergeModulelistOp {
  int dim = 0;
};
struct SplitModulelistOp {
  int dim = 0;
};
struct TransposeOp {
  int dim0 = 0;
  int dim1 = 1;
  bool check_dims = false;                   // only where the tensor does not fit its parameter
  std::optional<uint64_t> hidden_size = {};  // of the config, by which loading tells with check_dims
};
struct InterleaveOp {
  int dim = 0;
  bool inverse = false;
};
struct PermuteForRopeOp {
  std::optional<std::string> subconfig_key;
  std::vector<std::string> permute_layer_names;  // parts of names; patterns without any of them are left alone
  bool inverse = false;
  std::optional<uint64_t> num_heads = {};  // num_attention_heads of the sub-config
};
struct Conv3dToLinearOp {
  int in_channels = 0;
  std::array<int, 3> kernel_size = {};
};
struct LinearToConv3dOp {
  int in_channels = 0;
  std::array<int, 3> kernel_size = {};
};
struct ErnieFuseAndSplitOp {
  int stack_dim = 0;
  int concat_dim = 1;
};
struct ErnieSplitAndDecoupleOp {
  int stack_dim = 0;
  int concat_dim = 1;
};

using Operation =
    std::variant<ChunkOp, ConcatenateOp, MergeModulelistOp, SplitModulelistOp, TransposeOp, InterleaveOp,
                 PermuteForRopeOp, Conv3dToLinearOp, LinearToConv3dOp, ErnieFuseAndSplitOp, ErnieSplitAndDecoupleOp>;

// The class name transformers gives the operation, for example "MergeModulelist".
std::string_view OperationName(const Operation& operation);

// The operation that undoes this one.
Operation ReverseOperation(const Operation& operation);

enum class TransformKind { kWeightRenaming, kGroupWeightRename, kPrefixChange, kWeightConverter };

std::string_view TransformKindName(TransformKind kind);

struct Transform {
  TransformKind kind = TransformKind::kWeightRenaming;
  // Patterns as the mapping states them, before anchors, escapes and groups are processed. A PrefixChange derives
  // its own from the prefixes below.
  std::vector<std::string> source_patterns;
  std::vector<std::string> target_patterns;
  std::vector<Operation> operations;  // of a WeightConverter, in order

  std::optional<std::string> prefix_to_add;  // of a PrefixChange: one of the two
  std::optional<std::string> prefix_to_remove;
  std::string model_prefix;

  // Set on transforms collected from a sub-model: they match only below this path ("" is the base model's own),
  // with or without the base model's prefix in front.
  std::optional<std::string> scope_prefix;
  std::string base_model_prefix;
};

Transform MakePrefixChange(std::optional<std::string> add, std::optional<std::string> remove, std::string model_prefix);

// Sources and targets swapped, operations undone in reverse order; scope kept.
Transform ReverseTransform(const Transform& transform);

// One line for people: "WeightRenaming ^visual -> model.visual (below vision_tower)".
std::string DescribeTransform(const Transform& transform);

}  // namespace quantport
