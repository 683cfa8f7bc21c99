#include "report/transform_json.h"

#include <variant>

namespace quantport {
namespace {

Json Optional(const std::optional<std::string>& text) { return text ? Json(*text) : Json(nullptr); }

struct OperationFields {
  Json operator()(const ChunkOp& op) const {
    return {{"dim", op.dim}, {"num_shards_attribute", Optional(op.num_shards_attribute)}};
  }
  Json operator()(const ConcatenateOp& op) const {
    return {{"dim", op.dim}, {"num_shards_attribute", Optional(op.num_shards_attribute)}};
  }
  Json operator()(const SplitOp& op) const { return {{"dim", op.dim}}; }
  Json operator()(const MergeModulelistOp& op) const { return {{"dim", op.dim}}; }
  Json operator()(const SplitModulelistOp& op) const { return {{"dim", op.dim}}; }
  Json operator()(const TransposeOp& op) const {
    return {{"dim0", op.dim0}, {"dim1", op.dim1}, {"check_dims", op.check_dims}};
  }
  Json operator()(const InterleaveOp& op) const { return {{"dim", op.dim}, {"inverse", op.inverse}}; }
  Json operator()(const PermuteForRopeOp& op) const {
    return {{"subconfig_key", Optional(op.subconfig_key)},
            {"permute_layer_names", op.permute_layer_names.empty() ? Json(nullptr) : Json(op.permute_layer_names)},
            {"inverse", op.inverse}};
  }
  Json operator()(const Conv3dToLinearOp& op) const {
    return {{"in_channels", op.in_channels}, {"kernel_size", op.kernel_size}};
  }
  Json operator()(const LinearToConv3dOp& op) const {
    return {{"in_channels", op.in_channels}, {"kernel_size", op.kernel_size}};
  }
  Json operator()(const ErnieFuseAndSplitOp& op) const {
    return {{"stack_dim", op.stack_dim}, {"concat_dim", op.concat_dim}};
  }
  Json operator()(const ErnieSplitAndDecoupleOp& op) const {
    return {{"stack_dim", op.stack_dim}, {"concat_dim", op.concat_dim}};
  }
  Json operator()(const Inkling2UnpadVocabOp& op) const { return {{"inverse", op.inverse}}; }
  Json operator()(const Inkling2LoopDequantizeExpertsOp&) const { return Json::object(); }
  Json operator()(const Inkling2LoopMergeMessageQueriesOp& op) const { return {{"inverse", op.inverse}}; }
};

}  // namespace

Json TransformJson(const Transform& transform) {
  Json json = {{"type", TransformKindName(transform.kind)}};
  if (transform.kind == TransformKind::kPrefixChange) {
    json["prefix_to_add"] = Optional(transform.prefix_to_add);
    json["prefix_to_remove"] = Optional(transform.prefix_to_remove);
    json["model_prefix"] = transform.model_prefix;
  } else {
    json["source_patterns"] = transform.source_patterns;
    json["target_patterns"] = transform.target_patterns;
  }
  if (transform.kind == TransformKind::kIndexOffsetRename) json["offset"] = transform.offset;
  if (transform.kind == TransformKind::kWeightConverter) {
    json["operations"] = Json::array();
    for (const Operation& operation : transform.operations) {
      Json fields = {{"op", OperationName(operation)}};
      fields.update(std::visit(OperationFields{}, operation));
      json["operations"].push_back(std::move(fields));
    }
  }
  if (transform.scope_prefix) {
    json["scope_prefix"] = *transform.scope_prefix;
    json["base_model_prefix"] = transform.base_model_prefix;
  }
  return json;
}

}  // namespace quantport
