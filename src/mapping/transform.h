// The conversion mapping of transformers as types: what its WeightRenaming, WeightConverter and their kin say, without
// executing anything. Source: transformers' core_model_loading.py.
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
// Cuts into parts as large as the targets' parameters, which may differ.
struct SplitOp {
  int dim = 0;
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
  std::vector<std::string> permute_layer_names;  // parts of source names that are permuted; empty: all are
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
// Drops the rows of an unembedding beyond the text config's unpadded_vocab_size; inversely, pads with rows of zeros up
// to its vocab_size.
struct Inkling2UnpadVocabOp {
  bool inverse = false;
  std::optional<uint64_t> vocab_size = {};  // of the text config
  std::optional<uint64_t> unpadded_vocab_size = {};
};
// Makes one weight of a quantized one and its scales. transformers never quantizes again, so its own inverse leaves the
// one tensor as it is, under the name of the first.
struct Inkling2LoopDequantizeExpertsOp {};
// [query, mlp] and [key, value] rows of each loop layer, 2 tensors of [2L, H], become one of [L, 4, H]: query, key,
// value, mlp.
struct Inkling2LoopMergeMessageQueriesOp {
  bool inverse = false;
};

using Operation =
    std::variant<ChunkOp, ConcatenateOp, SplitOp, MergeModulelistOp, SplitModulelistOp, TransposeOp, InterleaveOp,
                 PermuteForRopeOp, Conv3dToLinearOp, LinearToConv3dOp, ErnieFuseAndSplitOp, ErnieSplitAndDecoupleOp,
                 Inkling2UnpadVocabOp, Inkling2LoopDequantizeExpertsOp, Inkling2LoopMergeMessageQueriesOp>;

// The class name transformers gives the operation, for example "MergeModulelist".
std::string_view OperationName(const Operation& operation);

// The operation that undoes this one.
Operation ReverseOperation(const Operation& operation);

enum class TransformKind {
  kWeightRenaming,
  kGroupWeightRename,
  kPrefixChange,
  kIndexOffsetRename,  // adds `offset` to the number that \1 stands for
  kLayerPairCollapse,  // layers 2i and 2i + 1 of the hub, attention and MLP, are one layer i; never undone
  kWeightConverter,
};

// How patterns are read, which transformers changed between two versions (docs/mappings.md).
enum class PatternRules {
  kAnywhere = 1,    // the first source that matches counts, "$" is an anchor that reversing carries along
  kWholeWords = 2,  // longer sources first, and none ends inside a word
};

std::string_view TransformKindName(TransformKind kind);

struct Transform {
  TransformKind kind = TransformKind::kWeightRenaming;
  PatternRules rules = PatternRules::kAnywhere;
  // Patterns as the mapping states them, before anchors, escapes and groups are processed. A PrefixChange derives
  // its own from the prefixes below.
  std::vector<std::string> source_patterns;
  std::vector<std::string> target_patterns;
  std::vector<Operation> operations;  // of a WeightConverter, in order
  int offset = 0;                     // of a kIndexOffsetRename

  std::optional<std::string> prefix_to_add;  // of a PrefixChange: one of the two
  std::optional<std::string> prefix_to_remove;
  std::string model_prefix;

  // Set on transforms collected from a sub-model: they match only below this path ("" is the base model's own),
  // with or without the base model's prefix in front.
  std::optional<std::string> scope_prefix;
  std::string base_model_prefix;
};

Transform MakePrefixChange(std::optional<std::string> add, std::optional<std::string> remove, std::string model_prefix);

// Sources and targets swapped, operations undone in reverse order; scope kept. A LayerPairCollapse stays as it is: its
// own pattern does not match what it gives, so saving keeps the collapsed layers.
Transform ReverseTransform(const Transform& transform);

// One line for people: "WeightRenaming ^visual -> model.visual (below vision_tower)".
std::string DescribeTransform(const Transform& transform);

}  // namespace quantport
