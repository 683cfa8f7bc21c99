#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "layout/layouts.h"
#include "layout/logical_weight.h"
#include "layout/shared_scales.h"
#include "unit/dense.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(BiasTest, AWeightWithABiasIsCutAlongItsOutputsOnly) {
  test::Store store;
  LogicalWeight weight;
  weight.parts.push_back({"weight", store.Whole(store.Add("x.weight", DType::kBF16, {4, 6})), {}});
  FillPlainLayout(&weight);
  StoredPart bias{"bias", store.Whole(store.Add("x.bias", DType::kBF16, {4})), {}};
  bias.axes = {Axis{0, 1}, std::nullopt};
  weight.parts.push_back(bias);
  const auto rows = Chunk(weight, 0, 2, 1);
  ASSERT_TRUE(rows.ok());
  EXPECT_EQ(store.Bytes(rows->Find("bias")->array), store.bytes[1].substr(4));
  SharedScales shared;
  EXPECT_THAT(ErrorLines(Chunk(weight, 1, 2, 0)), ElementsAre(HasSubstr("which each part would add")));
  EXPECT_THAT(ErrorLines(ConcatenateWeights({weight, weight}, 1, &shared)),
              ElementsAre(HasSubstr("which each part would add")));
}

}  // namespace
}  // namespace quantport
