#include "mapping/config_values.h"

#include <array>
#include <string_view>

namespace quantport {
namespace {

// Published configs keep names that transformers' config classes translate: Step3's "heads", Kimi's "vt_...".
constexpr std::array<std::string_view, 3> kHeads = {"num_attention_heads", "heads", "vt_num_attention_heads"};

// Routed experts. A list has a number for each layer, or for text and vision (Ernie 4.5 VL).
constexpr std::array<std::string_view, 6> kExperts = {"num_experts",     "num_local_experts",  "n_routed_experts",
                                                      "moe_num_experts", "num_routed_experts", "num_moe_experts"};

const Json& SubConfigOr(const Json& config, const std::string& key) {
  const auto it = config.find(key);
  return it != config.end() && it->is_object() ? *it : config;
}

std::optional<uint64_t> Number(const Json& config, std::string_view key) {
  const auto it = config.find(std::string(key));
  if (it == config.end() || !it->is_number_unsigned()) return std::nullopt;
  return it->get<uint64_t>();
}

void AppendCounts(const Json& config, std::vector<ExpertCount>* counts) {
  for (const std::string_view key : kExperts) {
    const auto it = config.find(std::string(key));
    if (it == config.end()) continue;
    const Json list = it->is_array() ? *it : Json::array({*it});
    for (const Json& number : list) {
      if (!number.is_number_unsigned() || number == 0) continue;
      counts->push_back({std::string(key), number.get<uint64_t>()});
    }
  }
}

class Filler {
 public:
  explicit Filler(const Json& config) : config_(config) {}

  void operator()(ChunkOp& op) const { FillShards(op.num_shards_attribute, &op.num_shards); }
  void operator()(ConcatenateOp& op) const { FillShards(op.num_shards_attribute, &op.num_shards); }
  void operator()(PermuteForRopeOp& op) const {
    const Json& config = op.subconfig_key ? SubConfigOr(config_, *op.subconfig_key) : config_;
    for (const std::string_view key : kHeads) {
      if (!op.num_heads) op.num_heads = Number(config, key);
    }
  }
  void operator()(TransposeOp& op) const {
    if (op.check_dims) op.hidden_size = Number(SubConfigOr(config_, "text_config"), "hidden_size");
  }
  void operator()(Inkling2UnpadVocabOp& op) const {
    const Json& config = SubConfigOr(config_, "text_config");
    op.vocab_size = Number(config, "vocab_size");
    op.unpadded_vocab_size = Number(config, "unpadded_vocab_size");
  }
  template <typename Op>
  void operator()(Op&) const {}

 private:
  // transformers reads it from the text model's config.
  void FillShards(const std::optional<std::string>& attribute, std::optional<uint64_t>* shards) const {
    if (attribute) *shards = Number(SubConfigOr(config_, "text_config"), *attribute);
  }

  const Json& config_;
};

}  // namespace

std::vector<ExpertCount> ExpertCounts(const Json& config) {
  std::vector<ExpertCount> counts;
  AppendCounts(config, &counts);
  if (counts.empty()) AppendCounts(SubConfigOr(config, "text_config"), &counts);
  return counts;
}

std::optional<uint64_t> HiddenLayers(const Json& config) {
  return Number(SubConfigOr(config, "text_config"), "num_hidden_layers");
}

void FillConfigValues(const Json& config, ResolvedModel* model) {
  const Json& text = SubConfigOr(config, "text_config");
  model->num_hidden_layers = HiddenLayers(config);
  for (const Json* place : {&config, &text}) {
    const auto tied = place->find("tie_word_embeddings");
    if (!model->tie_word_embeddings && tied != place->end() && tied->is_boolean())
      model->tie_word_embeddings = tied->get<bool>();
  }
  const Filler fill(config);
  for (Transform& transform : model->transforms) {
    for (Operation& operation : transform.operations) std::visit(fill, operation);
  }
}

}  // namespace quantport
