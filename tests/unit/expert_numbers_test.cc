#include "plan/expert_numbers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/error_lines.h"

namespace quantport {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

using Numbers = std::vector<std::optional<uint64_t>>;

std::vector<std::string> Problems(const std::vector<NumberedList>& lists) {
  const Status status = CheckNumbering("experts", "expert", lists);
  return status ? std::vector<std::string>() : test::ErrorLines(status.errors());
}

std::vector<std::string> OfOneList(const Numbers& numbers) {
  return Problems(std::vector<NumberedList>{{"w1", numbers}});
}

std::string Line(const std::string& message) { return "QuantConversionUnsupportedError experts: " + message; }

TEST(ExpertNumbersTest, NumbersFromZeroEachOnceAreRight) {
  EXPECT_THAT(OfOneList({0}), IsEmpty());
  EXPECT_THAT(OfOneList({2, 0, 1}), IsEmpty());
  EXPECT_THAT(Problems(std::vector<NumberedList>{{"w1", {1, 0}}, {"w3", {0, 1}}}), IsEmpty());
}

TEST(ExpertNumbersTest, WhatIsMissingIsNamedAsRanges) {
  EXPECT_THAT(OfOneList({1}), ElementsAre(Line("there is no expert 0, of 0 to 1")));
  EXPECT_THAT(OfOneList({9, 4, 0, 1}), ElementsAre(Line("there is no expert 2 to 3, 5 to 8, of 0 to 9")));
  Numbers even;
  for (uint64_t i = 0; i <= 40; i += 2) even.emplace_back(i);
  EXPECT_THAT(OfOneList(even), ElementsAre(Line("there is no expert 1, 3, 5, 7, 9, 11, 13, 15, ..., of 0 to 40")));
}

TEST(ExpertNumbersTest, WhatOneListLacksIsNamedByItsLinear) {
  EXPECT_THAT(Problems(std::vector<NumberedList>{{"w1", {0, 1, 2}}, {"w3", {0, 2}}}),
              ElementsAre(Line("w3 of expert 1 is missing")));
  EXPECT_THAT(Problems(std::vector<NumberedList>{{"w1", {}}, {"w3", {0, 1}}}),
              ElementsAre(Line("w1 of expert 0 to 1 is missing")));
}

TEST(ExpertNumbersTest, ANumberTwiceAndANameWithoutOneAreNamed) {
  EXPECT_THAT(OfOneList({0, 1, 1}), ElementsAre(Line("w1 of expert 1 stands twice")));
  EXPECT_THAT(OfOneList({0, std::nullopt}), ElementsAre(Line("the names of the experts' w1 do not say their numbers")));
}

TEST(ExpertNumbersTest, AListOfOneNeedsNoNumber) { EXPECT_THAT(OfOneList({std::nullopt}), IsEmpty()); }

TEST(ExpertNumbersTest, TheLargestNumberThatThereIsOverflowsNothing) {
  constexpr uint64_t kLargest = std::numeric_limits<uint64_t>::max();
  EXPECT_EQ(OfOneList({0, kLargest}).size(), 1u);
}

TEST(ExpertNumbersTest, ContainersAreFoundInNames) {
  EXPECT_EQ(ContainerOfExpert("m.layers.0.mlp.experts.3.w1.weight"), "m.layers.0.mlp.experts");
  EXPECT_EQ(ContainerOfExpert("experts.3.w1"), "experts");
  EXPECT_EQ(ContainerOfExpert("3.w1.weight"), "");
  EXPECT_EQ(ContainerOfExpert("shard_3.weight"), "");
  EXPECT_EQ(ContainerOfStack("m.layers.0.mlp.experts.down_proj"), "m.layers.0.mlp.experts");
  EXPECT_EQ(ContainerOfStack("m.layers.0.mlp.experts.down_proj.weight"), "m.layers.0.mlp.experts");
}

}  // namespace
}  // namespace quantport
