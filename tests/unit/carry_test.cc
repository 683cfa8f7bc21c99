#include "plan/carry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/dense.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using test::Store;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// An export of one tensor in one shard, to which others are carried from the reference.
struct Carry {
  Store store;      // the export's
  Store reference;  // of one shard, unless a test adds more
  Conversion conversion;

  Carry() {
    store.Add("model.norm.weight", DType::kBF16, {4});
    conversion.tensors.push_back({"model.norm.weight", store.Whole(0), FormatId::kPlain, 0});
  }

  Result<std::vector<std::string>> Run(const std::vector<std::string>& keys, bool sharded = true) {
    conversion.only_in_reference = keys;
    conversion.only_in_reference.push_back("left.weight");
    auto carried = CarryTensors(keys, reference.table, "/hub", sharded, &store.table, &conversion);
    if (!carried) return carried.errors();
    return std::move(carried->modules);
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const ConvertedTensor& tensor : conversion.tensors) names.push_back(tensor.name);
    return names;
  }
};

TEST(CarryTest, TensorsKeepNameFormAndPlace) {
  Carry carry;
  carry.reference.Add("mtp.a.weight", DType::kBF16, {2, 3});
  carry.reference.Add("mtp.b.weight", DType::kF32, {5});
  const auto modules = carry.Run({"mtp.b.weight"});
  ASSERT_TRUE(modules.ok());
  EXPECT_THAT(*modules, ElementsAre("mtp.b"));
  EXPECT_THAT(carry.Names(), ElementsAre("model.norm.weight", "mtp.b.weight"));
  const ConvertedTensor& carried = carry.conversion.tensors[1];
  EXPECT_EQ(carried.array.dtype, DType::kF32);
  EXPECT_THAT(carried.array.shape, ElementsAre(5));
  ASSERT_THAT(carried.array.blocks, SizeIs(1));
  const StoredTensor& stored = carry.store.table.tensors.at(carried.array.blocks[0].tensor);
  EXPECT_EQ(stored.info.name, "mtp.b.weight");
  EXPECT_EQ(stored.info.begin, 12u);
  EXPECT_EQ(carry.store.table.shards.at(stored.shard).name, "/hub/model.safetensors");
  EXPECT_EQ(carried.shard, stored.shard);
  EXPECT_THAT(carry.conversion.only_in_reference, ElementsAre("left.weight"));
}

TEST(CarryTest, ShardsOfTheReferenceKeepTogetherOrJoinTheOnlyFile) {
  for (const bool sharded : {true, false}) {
    Carry carry;
    carry.reference.table.shards.push_back({"second.safetensors", 8, 0, {}});
    carry.reference.Add("a.weight", DType::kBF16, {2});
    carry.reference.Add("b.weight", DType::kBF16, {2});
    carry.reference.table.tensors[1].shard = 1;
    ASSERT_TRUE(carry.Run({"a.weight", "b.weight"}, sharded).ok());
    EXPECT_THAT(carry.store.table.shards, SizeIs(3));
    EXPECT_EQ(carry.conversion.tensors[1].shard, sharded ? 1u : 0u);
    EXPECT_EQ(carry.conversion.tensors[2].shard, sharded ? 2u : 0u);
    // Whichever file they go to, they are read from their own.
    EXPECT_EQ(carry.store.table.tensors[2].shard, 2u);
    EXPECT_EQ(carry.store.table.shards[2].data_start, 8u);
  }
}

TEST(CarryTest, CompanionsComeAlong) {
  Carry carry;
  carry.reference.Add("mtp.proj.weight", DType::kF8E4M3, {128, 256});
  carry.reference.Add("mtp.other.weight", DType::kBF16, {2});
  carry.reference.Add("mtp.proj.weight_scale_inv", DType::kF32, {1, 2});
  const auto modules = carry.Run({"mtp.proj.weight"});
  ASSERT_TRUE(modules.ok());
  EXPECT_THAT(carry.Names(), ElementsAre("model.norm.weight", "mtp.proj.weight", "mtp.proj.weight_scale_inv"));
  EXPECT_EQ(carry.conversion.tensors[2].format, FormatId::kFp8Block);
  EXPECT_THAT(*modules, testing::IsEmpty()) << "an exclude list would say that it is not quantized";
}

TEST(CarryTest, KvScalesGoWithTheirProjection) {
  Carry carry;
  carry.reference.Add("mtp.self_attn.k_proj.weight", DType::kBF16, {2, 2});
  carry.reference.Add("mtp.self_attn.k_proj.k_scale", DType::kF32, {});
  ASSERT_TRUE(carry.Run({"mtp.self_attn.k_proj.weight"}).ok());
  EXPECT_THAT(carry.Names(),
              ElementsAre("model.norm.weight", "mtp.self_attn.k_proj.weight", "mtp.self_attn.k_proj.k_scale"));
}

TEST(CarryTest, KvScalesBesideTheirProjectionComeAlongAndOthersStay) {
  Carry carry;
  carry.reference.Add("mtp.self_attn.kv_b_proj.weight", DType::kBF16, {2, 2});
  carry.reference.Add("mtp.self_attn.k_scale", DType::kF32, {});
  carry.reference.Add("model.self_attn.rotary.inv_freq", DType::kF32, {2});
  carry.reference.Add("model.self_attn.k_scale", DType::kF32, {});
  ASSERT_TRUE(carry.Run({"model.self_attn.rotary.inv_freq", "mtp.self_attn.kv_b_proj.weight"}).ok());
  EXPECT_THAT(carry.Names(), ElementsAre("model.norm.weight", "mtp.self_attn.kv_b_proj.weight", "mtp.self_attn.k_scale",
                                         "model.self_attn.rotary.inv_freq"));
}

TEST(CarryTest, OnlyWeightsMakeModules) {
  Carry carry;
  carry.reference.Add("rotary.inv_freq", DType::kF32, {2});
  carry.reference.Add("mtp.proj.weight", DType::kBF16, {2, 2});
  carry.reference.Add("mtp.proj.bias", DType::kBF16, {2});
  const auto modules = carry.Run({"mtp.proj.bias", "mtp.proj.weight", "rotary.inv_freq"});
  ASSERT_TRUE(modules.ok());
  EXPECT_THAT(*modules, ElementsAre("mtp.proj"));
  EXPECT_THAT(carry.Names(), SizeIs(4));
}

TEST(CarryTest, NothingWantedAddsNoTensor) {
  Carry carry;
  carry.reference.Add("a.weight", DType::kBF16, {2});
  const auto modules = carry.Run({});
  ASSERT_TRUE(modules.ok());
  EXPECT_THAT(*modules, IsEmpty());
  EXPECT_THAT(carry.Names(), ElementsAre("model.norm.weight"));
}

TEST(CarryTest, ABrokenReferenceIsAnError) {
  Carry carry;
  carry.reference.Add("lost.weight_scale_inv", DType::kF32, {1, 1});
  carry.reference.Add("a.weight", DType::kBF16, {2});
  EXPECT_THAT(ErrorLines(carry.Run({"a.weight"})), SizeIs(1));
}

}  // namespace
}  // namespace quantport
