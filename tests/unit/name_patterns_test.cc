// Sets of module names as a few patterns, which match them and nothing else.
#include "config/name_patterns.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "mapping/pattern.h"

namespace quantport {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

using Names = std::vector<std::string>;

std::vector<uint32_t> Indices(const Names& sorted, const Names& wanted) {
  std::vector<uint32_t> indices;
  for (uint32_t i = 0; i < sorted.size(); ++i) {
    if (std::find(wanted.begin(), wanted.end(), sorted[i]) != wanted.end()) indices.push_back(i);
  }
  return indices;
}

Names Regexes(Names names, const Names& wanted) {
  std::sort(names.begin(), names.end());
  Names regexes;
  for (const NamePattern& pattern : AlikeNames(names).PatternsFor(Indices(names, wanted)))
    regexes.push_back(pattern.Regex());
  return regexes;
}

Names Experts(int layers, int experts) {
  Names names;
  for (int l = 0; l < layers; ++l) {
    for (int e = 0; e < experts; ++e) {
      for (const char* leaf : {"w1", "w2"}) names.push_back(fmt::format("m.layers.{}.e.{}.{}", l, e, leaf));
    }
  }
  names.push_back("lm_head");
  return names;
}

TEST(NamePatternsTest, AllNumbersAreOnePattern) {
  Names wanted = Experts(12, 11);
  wanted.pop_back();
  EXPECT_THAT(Regexes(Experts(12, 11), wanted), ElementsAre(R"(^m\.layers\.\d+\.e\.\d+\.(w1|w2)$)"));
}

TEST(NamePatternsTest, SomeNumbersAreNamed) {
  EXPECT_THAT(Regexes(Experts(12, 2), {"m.layers.1.e.0.w1", "m.layers.1.e.1.w1", "m.layers.11.e.0.w1",
                                       "m.layers.11.e.1.w1", "m.layers.2.e.1.w1"}),
              UnorderedElementsAre(R"(^m\.layers\.(1|11)\.e\.\d+\.w1$)", R"(^m\.layers\.2\.e\.1\.w1$)"));
  EXPECT_THAT(Regexes(Experts(2, 2), {"lm_head"}), ElementsAre("^lm_head$"));
}

TEST(NamePatternsTest, GlobsHaveStarsForNumbers) {
  const Names names = {"m.0.a", "m.0.b", "m.1.a", "m.1.b"};
  const auto patterns = AlikeNames(names).PatternsFor({0, 1, 2, 3});
  ASSERT_EQ(patterns.size(), 1U);
  EXPECT_EQ(patterns[0].Combinations(), 2U);
  EXPECT_THAT(patterns[0].Globs(), ElementsAre("m.*.a", "m.*.b"));
}

TEST(NamePatternsTest, WhateverIsWantedIsMatchedAndNothingElse) {
  std::mt19937 random(7);
  Names names = Experts(13, 4);
  names.insert(names.end(), {"m.layers.0.e", "m.layers..e.1.w1", "m.layers.x.e.1.w1", "7", "7.7", "", "."});
  std::sort(names.begin(), names.end());
  for (int round = 0; round < 200; ++round) {
    std::vector<uint32_t> wanted;
    for (uint32_t i = 0; i < names.size(); ++i) {
      if (random() % 8 < static_cast<unsigned>(round % 9)) wanted.push_back(i);
    }
    std::vector<uint32_t> matched;
    const auto patterns = AlikeNames(names).PatternsFor(wanted);
    for (uint32_t i = 0; i < names.size(); ++i) {
      const bool hit = std::any_of(patterns.begin(), patterns.end(), [&](const NamePattern& pattern) {
        uint64_t steps = UINT64_MAX;
        return ModulePattern::Compile(pattern.Regex())->MatchesStart(names[i], &steps) == PatternMatch::kYes;
      });
      if (hit) matched.push_back(i);
    }
    EXPECT_EQ(matched, wanted);
  }
}

TEST(NamePatternsTest, APathWithoutEndIsOneName) {
  std::string deep = "1";
  for (int i = 0; i < 100'000; ++i) deep += ".1";
  const Names names = {deep};
  EXPECT_EQ(AlikeNames(names).PatternsFor({0}).size(), 1U);
  EXPECT_THAT(SubtreesFor(names, {0}).above, ElementsAre("1"));
}

TEST(SubtreesTest, TheShortestPathThatHoldsNothingElse) {
  const Names names = {"a.b.c", "a.b.d", "a.x", "ab.c", "lm_head"};
  Subtrees subtrees = SubtreesFor(names, {0, 1, 3, 4});
  EXPECT_THAT(subtrees.above, ElementsAre("a.b", "ab"));
  EXPECT_THAT(subtrees.alone, ElementsAre("lm_head"));
  subtrees = SubtreesFor(names, {1, 2});
  EXPECT_THAT(subtrees.above, IsEmpty());
  EXPECT_THAT(subtrees.alone, ElementsAre("a.b.d", "a.x"));
}

TEST(EscapedNameTest, SpecialCharactersAreTextOnly) { EXPECT_EQ(EscapedName("a.b[0]+c_d"), R"(a\.b\[0\]\+c_d)"); }

}  // namespace
}  // namespace quantport
