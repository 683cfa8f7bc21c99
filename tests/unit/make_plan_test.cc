// Which files a plan has.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plan/plan.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using testing::ElementsAre;

// One tensor of this shape in each shard, kept as it is.
Result<Plan> PlanOf(const std::vector<std::string>& shards, const std::vector<uint64_t>& shape = {1}) {
  TensorTable table;
  Conversion conversion;
  for (const std::string& shard : shards) {
    const auto index = static_cast<uint32_t>(table.shards.size());
    table.shards.push_back({shard, 0, 0, {}});
    table.tensors.push_back({{"t" + std::to_string(index), DType::kU8, shape, 0, 1}, index});
    conversion.tensors.push_back(
        {table.tensors.back().info.name, WholeTensor(index, DType::kU8, shape), FormatId::kPlain, index});
  }
  PlanOptions options;
  options.sharded = true;
  return MakePlan(conversion, table, "in", options);
}

TEST(MakePlanTest, CarriedShardsGetNamesThatNoOtherHas) {
  const auto plan = PlanOf({"carried-m.safetensors", "/r/a/m.safetensors", "/r/b/m.safetensors"});
  ASSERT_TRUE(plan.ok());
  std::vector<std::string> names;
  for (const PlannedFile& file : plan->files) names.push_back(file.name);
  EXPECT_THAT(names, ElementsAre("carried-m.safetensors", "carried-carried-m.safetensors",
                                 "carried-carried-carried-m.safetensors"));
}

TEST(MakePlanTest, CarriesTheStampsOfItsSources) {
  const FileStamp stamp = {1, 2, 3, 4};
  TensorTable table;
  table.shards = {{"a.safetensors", 8, 9, {}, stamp}, {"b.safetensors", 8, 9, {}}};
  const auto plan = MakePlan({}, table, "in", {});
  ASSERT_TRUE(plan.ok());
  EXPECT_THAT(plan->sources, testing::SizeIs(2));
  EXPECT_THAT(plan->sources, ElementsAre(testing::Field(&PlanSource::stamp, testing::Optional(stamp)),
                                         testing::Field(&PlanSource::stamp, std::nullopt)));
}

TEST(MakePlanTest, RefusesATensorWhoseSizeOverflows) {
  EXPECT_THAT(ErrorLines(PlanOf({"m.safetensors"}, {uint64_t{1} << 40, uint64_t{1} << 40})),
              ElementsAre(testing::HasSubstr("its size is beyond any file's")));
}

}  // namespace
}  // namespace quantport
