// The table of linears that engines load as one, as it is built in.
#include "layout/fused_linears.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

namespace quantport {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSubsetOf;
using ::testing::Not;

TEST(FusedLinearsTest, EveryEntryHasPartsOfItsOwnAndAnEngine) {
  ASSERT_THAT(FusedLinears(), Not(IsEmpty()));
  std::set<std::string> seen;
  for (const FusedLinear& fused : FusedLinears()) {
    EXPECT_GE(fused.parts.size(), 2u) << fused.name;
    EXPECT_THAT(fused.engines, Not(IsEmpty())) << fused.name;
    EXPECT_THAT(fused.engines, IsSubsetOf({"vllm", "sglang"})) << fused.name;
    for (const std::string& part : fused.parts) EXPECT_TRUE(seen.insert(part).second) << part;
  }
}

TEST(FusedLinearsTest, AModuleIsFoundByItsLastSegment) {
  const FusedLinear* fused = FindFusedLinear("model.layers.0.self_attn.k_proj");
  ASSERT_NE(fused, nullptr);
  EXPECT_EQ(fused->name, "qkv_proj");
  EXPECT_THAT(fused->parts, ElementsAre("q_proj", "k_proj", "v_proj"));
  ASSERT_NE(FindFusedLinear("layers.0.ffn.experts.3.w3"), nullptr);
  EXPECT_EQ(FindFusedLinear("layers.0.ffn.experts.3.w3"), FindFusedLinear("layers.0.ffn.experts.3.w1"));
  EXPECT_EQ(FindFusedLinear("layers.0.ffn.experts.3.w2"), nullptr);
  EXPECT_EQ(FindFusedLinear("model.layers.0.self_attn.o_proj"), nullptr);
}

TEST(FusedLinearsTest, QueriesOfACrossAttentionStayByThemselves) {
  EXPECT_EQ(FindFusedLinear("decoder.layers.0.encoder_attn.q_proj"), nullptr);
  EXPECT_EQ(FindFusedLinear("decoder.layers.0.cross_attn.q_proj"), nullptr);
  EXPECT_NE(FindFusedLinear("decoder.layers.0.encoder_attn.k_proj"), nullptr);
}

}  // namespace
}  // namespace quantport
