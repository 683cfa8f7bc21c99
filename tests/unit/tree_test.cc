#include "report/tree.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/text.h"

namespace quantport {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

InspectModule Plain(const std::string& name, const std::vector<uint64_t>& shape = {4}, DType dtype = DType::kBF16) {
  return {name, "plain", dtype, shape, 8, {"weight"}, {}};
}

std::vector<std::string> Lines(const std::vector<InspectModule>& modules, const InspectTextOptions& options = {}) {
  std::istringstream text(ModuleTree(modules, options));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

// The first column: where in the tree a line stands and what it is called.
std::vector<std::string> Names(const std::vector<InspectModule>& modules, const InspectTextOptions& options = {}) {
  std::vector<std::string> names;
  for (const std::string& line : Lines(modules, options))
    names.push_back(line.substr(0, line.find("  ", line.find_first_not_of(' '))));
  return names;
}

TEST(TreeTest, FoldsNumberedSiblingsThatAreAlike) {
  std::vector<InspectModule> modules;
  for (int layer = 0; layer < 12; ++layer) {
    for (int expert = 0; expert < 300; ++expert) {
      for (const char* linear : {"down", "up"})
        modules.push_back(Plain(fmt::format("model.layers.{}.experts.{}.{}", layer, expert, linear)));
    }
  }
  EXPECT_THAT(Names(modules), ElementsAre("model.layers.0-11.experts.0-299", "  down", "  up"));
  EXPECT_THAT(Lines(modules)[0], HasSubstr("57.60 kB  7200 weights"));
  EXPECT_THAT(Lines(modules)[1], HasSubstr("28.80 kB  3600 x [4]"));
}

TEST(TreeTest, KeepsSiblingsApartThatDifferInShapeOrFormat) {
  const std::vector<InspectModule> modules = {Plain("layers.0.up"), Plain("layers.1.up", {5}),
                                              Plain("layers.2.up"), Plain("layers.3.up", {4}, DType::kF32),
                                              Plain("layers.4.up"), Plain("layers.5.up")};
  EXPECT_THAT(Names(modules), ElementsAre("layers", "  layers.0,2,4-5.up", "  layers.1.up", "  layers.3.up"));
  EXPECT_THAT(Lines(modules)[1], HasSubstr("4 x [4]"));
}

TEST(TreeTest, KeepsSiblingsApartOfWhichOneHasAModuleMore) {
  const std::vector<InspectModule> modules = {Plain("layers.0.up"), Plain("layers.1.down"), Plain("layers.1.up")};
  EXPECT_THAT(Names(modules), ElementsAre("layers", "  layers.0.up", "  layers.1", "    down", "    up"));
}

TEST(TreeTest, FoldsParametersCalledByNumbers) {
  std::vector<InspectModule> modules = {Plain("tables.0"), Plain("tables.1")};
  modules[0].tensors = {"0 BF16 [4]"};
  modules[1].tensors = {"1 BF16 [4]"};
  EXPECT_THAT(Names(modules), ElementsAre("tables.0-1"));
}

TEST(TreeTest, ShowsABiasBesideItsWeight) {
  EXPECT_THAT(Lines({Plain("proj", {4, 2}), Plain("proj.bias")}), ElementsAre("proj  BF16       16 B  [4, 2] +bias"));
}

TEST(TreeTest, NumbersThatAreNoneAreNames) {
  const std::vector<InspectModule> modules = {Plain("a.00"), Plain("a.01"), Plain("a.99999999999999999999999")};
  EXPECT_THAT(Names(modules), ElementsAre("a", "  00", "  01", "  99999999999999999999999"));
}

TEST(TreeTest, DepthCutsLevels) {
  const std::vector<InspectModule> modules = {Plain("a.b.c"), Plain("a.b.d"), Plain("a.e"), Plain("f")};
  EXPECT_THAT(Names(modules, {.depth = 1}),
              ElementsAre("a", "f", "4 lines more (--depth N shows more levels, --modules every module)"));
  EXPECT_THAT(Names(modules, {.depth = 2}), ElementsAre("a", "  b", "  e", "f", HasSubstr("2 lines more")));
  EXPECT_THAT(Names(modules), ElementsAre("a", "  b", "    c", "    d", "  e", "f"));
}

TEST(TreeTest, TakesAsManyLevelsAsFit) {
  std::vector<InspectModule> modules;
  for (int i = 0; i < 3; ++i) {
    for (uint64_t j = 0; j < 150; ++j) modules.push_back(Plain(fmt::format("m{}.x{}", i, j)));
  }
  EXPECT_THAT(Names(modules), ElementsAre("m0", "m1", "m2", HasSubstr("450 lines more")));
  EXPECT_THAT(Names(modules, {.depth = 2}), SizeIs(453));
}

TEST(TreeTest, StaysShortForNamesThatFoldNowhere) {
  std::vector<InspectModule> modules;
  for (int i = 0; i < 100'000; ++i) modules.push_back(Plain(fmt::format("tensor_{}", i)));
  EXPECT_THAT(Lines(modules), SizeIs(201));
}

TEST(TreeTest, NameOfManyDotsDoesNotMakeItDeep) {
  const std::string name = "a" + ReplaceAll(std::string(100'000, '.'), ".", ".b");
  EXPECT_THAT(Lines({Plain(name), Plain("a.c")}), SizeIs(3));
}

TEST(TreeTest, LinesKeepToTheWidthAndNamesKeepTheirEnds) {
  const std::vector<InspectModule> modules = {Plain("first_" + std::string(200, 'x') + "_last"),
                                              Plain("short", {100000, 100000, 100000, 100000, 100000})};
  for (const int width : {60, 80, 100, 150}) {
    const auto lines = Lines(modules, {.width = width});
    for (const std::string& line : lines) EXPECT_LE(line.size(), static_cast<size_t>(width));
    EXPECT_THAT(lines[0].substr(0, 6), "first_");
    EXPECT_THAT(lines[0], HasSubstr("_last "));
  }
}

TEST(TextTest, ShortensInTheMiddleByCharacters) {
  EXPECT_EQ(ShortenMiddle("abcdefgh", 8), "abcdefgh");
  EXPECT_EQ(ShortenMiddle("abcdefghi", 8), "abc...hi");
  EXPECT_EQ(ShortenMiddle("äöüßäöüßä", 8), "äöü...ßä");
  EXPECT_EQ(ShortenMiddle("abcdef", 4), "a...");
  EXPECT_EQ(ShortenMiddle("abcdef", 2), "..");
}

}  // namespace
}  // namespace quantport
