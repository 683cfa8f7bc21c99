// Which modules entries of strangers' lists match, and what matching them may cost.
#include "dialect/module_names.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Names = std::vector<std::string>;

const Names kModules = {"a.mlp.gate", "a.mlp.gate_proj", "a.mlp.gate.x", "b.gate", "mlp.gate"};

Names Matched(const std::string& entry, Matching matching, const Names& modules = kModules) {
  const ModuleNames names(modules);
  MatchBudget budget;
  const auto found = names.Matches(entry, matching, &budget);
  EXPECT_TRUE(found.ok()) << entry;
  Names matched;
  for (const uint32_t index : *found) matched.push_back(names.names()[index]);
  return matched;
}

TEST(ModuleNamesTest, ANameStandsForWhatLiesBelow) {
  EXPECT_THAT(Matched("a.mlp.gate", Matching::kExact), ElementsAre("a.mlp.gate", "a.mlp.gate.x"));
  EXPECT_THAT(Matched("a.mlp", Matching::kExact), ElementsAre("a.mlp.gate", "a.mlp.gate.x", "a.mlp.gate_proj"));
  EXPECT_THAT(Matched("a.ml", Matching::kExact), IsEmpty());
}

TEST(ModuleNamesTest, SegmentsMayStandAtEitherEnd) {
  EXPECT_THAT(Matched("mlp.gate", Matching::kSegments), ElementsAre("a.mlp.gate", "mlp.gate"));
  EXPECT_THAT(Matched("gate", Matching::kSegments), ElementsAre("a.mlp.gate", "b.gate", "mlp.gate"));
  EXPECT_THAT(Matched("a.*gate", Matching::kSegments), ElementsAre("a.mlp.gate", "a.mlp.gate.x"));
}

TEST(ModuleNamesTest, AnEndIsWholeSegments) {
  EXPECT_THAT(Matched("gate", Matching::kEnd), ElementsAre("a.mlp.gate", "b.gate", "mlp.gate"));
  EXPECT_THAT(Matched("ate", Matching::kEnd), IsEmpty());
  EXPECT_THAT(Matched("a.mlp.gate", Matching::kEnd), ElementsAre("a.mlp.gate"));
}

TEST(ModuleNamesTest, ExpressionsMatchTheBeginningOrAnyPart) {
  EXPECT_THAT(Matched("re:.*gate$", Matching::kRegexStart), ElementsAre("a.mlp.gate", "b.gate", "mlp.gate"));
  EXPECT_THAT(Matched("mlp", Matching::kRegexStart), ElementsAre("mlp.gate"));
  EXPECT_THAT(Matched("p\\.gate$", Matching::kRegexSearch), ElementsAre("a.mlp.gate", "mlp.gate"));
  EXPECT_THAT(Matched("(", Matching::kRegexSearch), IsEmpty());
}

TEST(ModuleNamesTest, AnExpressionThatTakesTooLongIsAnErrorAndNotNoMatch) {
  // A name without the characters that the expressions end in would be seen not to match at once.
  const std::string name = std::string(60, 'a') + "xba";
  const ModuleNames names({name});
  MatchBudget budget;
  for (const char* entry : {"re:(.+)+x$", "re:(a|a)*b", "re:((a*)*)*b"}) {
    const auto found = names.Matches(entry, Matching::kRegexStart, &budget);
    EXPECT_THAT(ErrorLines(found), ElementsAre(HasSubstr("takes more than 1000000 steps"))) << entry;
    ASSERT_FALSE(found.ok());
    EXPECT_THAT(found.errors()[0].message, HasSubstr(entry));
    EXPECT_EQ(found.errors()[0].tensor, name);
  }
}

TEST(ModuleNamesTest, AMatchThatNeedsMoreThanTheCompiledStackIsFound) {
  // The names are long and the pattern keeps every step of the way back.
  const std::string name(20000, 'a');
  EXPECT_THAT(Matched("(?:(a)|b)*", Matching::kRegexStart, {name}), ElementsAre(name));
}

TEST(ModuleNamesTest, AllEntriesShareOneBudget) {
  Names modules;
  for (int i = 0; i < 100; ++i) modules.push_back(fmt::format("a.{}.b", i));
  const ModuleNames names(modules);
  for (const auto& [entry, matching] : {std::pair("re:.*c", Matching::kRegexStart), std::pair("*c", Matching::kGlob)}) {
    MatchBudget budget{.steps = 200'000};
    size_t fitted = 0;
    Result<std::vector<uint32_t>> found = std::vector<uint32_t>();
    while ((found = names.Matches(entry, matching, &budget))) ++fitted;
    EXPECT_GT(fitted, 1U) << entry;
    EXPECT_LT(fitted, 1000U) << entry;
    EXPECT_THAT(ErrorLines(found), ElementsAre(HasSubstr("against all modules"))) << entry;
    EXPECT_THAT(found.errors()[0].message, HasSubstr(entry));
  }
}

TEST(ModuleNamesTest, AMatchStopsOnRequest) {
  std::atomic<bool> cancel = true;
  MatchBudget budget{.cancel = &cancel};
  const auto found = ModuleNames(kModules).Matches("*gate", Matching::kGlob, &budget);
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.errors()[0].kind, ErrorKind::kCancelled);
}

}  // namespace
}  // namespace quantport
