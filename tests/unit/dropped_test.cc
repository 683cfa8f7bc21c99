#include "plan/dropped.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/error_lines.h"

namespace quantport {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ResolvedModel Model() {
  ResolvedModel model;
  model.architecture = "DeepseekV3ForCausalLM";
  model.tied_weights = {"lm_head.weight"};
  model.num_hidden_layers = 2;
  return model;
}

std::string KindOf(const std::string& key, const ResolvedModel& model = Model()) {
  const auto dropped = ClassifyDropped({key}, model);
  if (!dropped) return test::ErrorLines(dropped).at(0);
  EXPECT_EQ(dropped->size(), 1u);
  EXPECT_EQ((*dropped)[0].key, key);
  return std::string(DroppedKindName((*dropped)[0].kind));
}

TEST(DroppedTest, TiedWeightsAreThoseOfTheRegistryUnlessTheConfigUntiesThem) {
  ResolvedModel model = Model();
  EXPECT_EQ(KindOf("lm_head.weight", model), "tied");
  model.tie_word_embeddings = true;
  EXPECT_EQ(KindOf("lm_head.weight", model), "tied");
  EXPECT_EQ(KindOf("model.embed_tokens.weight", model), "other");
  model.tie_word_embeddings = false;
  EXPECT_EQ(KindOf("lm_head.weight", model), "other");
}

TEST(DroppedTest, TiedWeightsAreKnownByTheirNamesInMemory) {
  ResolvedModel model = Model();
  Transform rename;
  rename.source_patterns = {"^embed_out\\."};
  rename.target_patterns = {"lm_head."};
  model.transforms = {rename};
  EXPECT_EQ(KindOf("embed_out.weight", model), "tied");
  EXPECT_EQ((*ClassifyDropped({"embed_out.weight"}, model))[0].in_memory, "lm_head.weight");
}

TEST(DroppedTest, LayersBehindTheLastArePredictionLayers) {
  EXPECT_EQ(KindOf("model.layers.2.eh_proj.weight"), "mtp");
  EXPECT_EQ(KindOf("model.layers.20.mlp.experts.0.down_proj.weight"), "mtp");
  EXPECT_EQ(KindOf("model.layers.1.eh_proj.weight"), "other");
  EXPECT_EQ(KindOf("model.layers.99999999999999999999999.x.weight"), "other") << "no number of a layer";
  EXPECT_EQ(KindOf("model.layers.2x.weight"), "other");
  EXPECT_EQ(KindOf("model.layers"), "other");
  EXPECT_EQ(KindOf("model.blocks.2.weight"), "other");
  ResolvedModel unknown = Model();
  unknown.num_hidden_layers.reset();
  EXPECT_EQ(KindOf("model.layers.2.eh_proj.weight", unknown), "other");
}

TEST(DroppedTest, PredictionLayersMayHaveANameOfTheirOwn) {
  for (const std::string component : {"mtp", "nextn", "mtp_layers", "mtp_block", "nextn_predict_layers"})
    EXPECT_EQ(KindOf("model." + component + ".0.norm.weight"), "mtp") << component;
  EXPECT_EQ(KindOf("model.mtpx.0.norm.weight"), "other");
}

TEST(DroppedTest, TowersAndEncodersHaveNoPredictionLayers) {
  EXPECT_EQ(KindOf("audio_tower.layers.2.fc1.weight"), "other");
  EXPECT_EQ(KindOf("model.vision_tower.layers.9.mlp.fc1.weight"), "other");
  EXPECT_EQ(KindOf("model.decoder.layers.2.fc1.weight"), "other") << "num_hidden_layers is the encoder's";
  EXPECT_EQ(KindOf("model.language_model.layers.2.mlp.up_proj.weight"), "mtp");
}

TEST(DroppedTest, BuffersAreKnownByTheirLeaf) {
  for (const std::string leaf : {"inv_freq", "position_ids", "masked_bias", "causal_mask", "cos_cached", "sin_cached"})
    EXPECT_EQ(KindOf("model.layers.0.self_attn." + leaf), "buffer") << leaf;
  EXPECT_EQ(KindOf("h.0.attn.bias"), "buffer") << "GPT-2's causal mask";
  EXPECT_EQ(KindOf("h.0.attn.c_attn.bias"), "other");
  EXPECT_EQ(KindOf("h.0.attn.weight"), "other");
  EXPECT_EQ(KindOf("model.layers.2.self_attn.rotary_emb.inv_freq"), "mtp") << "of a layer that is left out as a whole";
}

TEST(DroppedTest, TheOrderIsKept) {
  const auto dropped = ClassifyDropped({"z", "model.layers.2.a.weight", "lm_head.weight"}, Model());
  ASSERT_TRUE(dropped.ok());
  std::vector<DroppedKind> kinds;
  for (const Dropped& tensor : *dropped) kinds.push_back(tensor.kind);
  EXPECT_THAT(kinds, ElementsAre(DroppedKind::kOther, DroppedKind::kMtp, DroppedKind::kTied));
}

TEST(DroppedTest, ATransformThatDoesNotCompileIsAnError) {
  ResolvedModel model = Model();
  Transform broken;
  broken.source_patterns = {"("};
  broken.target_patterns = {"x"};
  model.transforms = {broken};
  EXPECT_THAT(KindOf("a", model), HasSubstr("InvalidMappingError"));
}

}  // namespace
}  // namespace quantport
