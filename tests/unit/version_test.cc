#include "mapping/version.h"

#include <gtest/gtest.h>

#include <string>

#include "mapping/registry.h"

namespace quantport {
namespace {

constexpr BuiltInMapping kMappings[] = {{"5.9.0", ""}, {"5.17.0", ""}, {"5.24.0", ""}};

VersionChoice Choose(const std::string& config) {
  auto choice = ChooseVersion(kMappings, std::nullopt, config);
  EXPECT_TRUE(choice);
  return choice ? *choice : VersionChoice{kMappings, "none"};
}

std::string ChosenFor(const std::string& version) {
  return std::string(Choose(R"({"transformers_version": ")" + version + R"("})").candidates.front().version);
}

TEST(ParseReleaseTest, NumbersAndSuffixes) {
  EXPECT_EQ(ParseRelease("5.17.0"), (Release{5, 17, 0}));
  EXPECT_EQ(ParseRelease("5.18.0.dev0"), (Release{5, 18, 0}));
  EXPECT_EQ(ParseRelease("5.18.0rc1"), (Release{5, 18, 0}));
  EXPECT_EQ(ParseRelease("5.18.0+local.7"), (Release{5, 18, 0}));
  EXPECT_EQ(ParseRelease("5.18.dev0"), (Release{5, 18, 0}));
  EXPECT_EQ(ParseRelease("5"), (Release{5, 0, 0}));
}

TEST(ParseReleaseTest, WhatIsNoVersion) {
  for (const char* text : {"", "main", "v5.17.0", ".5", "-1.0", "99999999999.0"})
    EXPECT_EQ(ParseRelease(text), std::nullopt) << text;
}

TEST(ChooseVersionTest, NearestBuiltInThatIsNotNewer) {
  EXPECT_EQ(ChosenFor("5.17.0"), "5.17.0");
  EXPECT_EQ(ChosenFor("5.16.9"), "5.9.0");  // numbers, not text: 9 is before 17
  EXPECT_EQ(ChosenFor("5.18.0.dev0"), "5.17.0");
  EXPECT_EQ(ChosenFor("5.24.0.dev0"), "5.24.0");
  EXPECT_EQ(ChosenFor("6.0.0"), "5.24.0");
  EXPECT_EQ(ChosenFor("4.57.1"), "5.9.0");
}

TEST(ChooseVersionTest, TheOldestWhereNoVersionIsStated) {
  for (const char* config :
       {"{}", R"({"transformers_version": null})", R"({"transformers_version": "main"})", "no JSON", "[]"})
    EXPECT_EQ(Choose(config).candidates.front().version, "5.9.0") << config;
}

TEST(ChooseVersionTest, NewerOnesMayBeAskedUnlessTheVersionIsExact) {
  EXPECT_EQ(Choose(R"({"transformers_version": "5.17.0"})").candidates.size(), 1U);
  EXPECT_EQ(Choose(R"({"transformers_version": "5.20.0"})").candidates.size(), 2U);
  EXPECT_EQ(Choose(R"({"transformers_version": "6.0.0"})").candidates.size(), 1U);
  EXPECT_EQ(Choose("{}").candidates.size(), 3U);
}

TEST(ChooseVersionTest, AskedFor) {
  auto choice = ChooseVersion(kMappings, "5.17.0", R"({"transformers_version": "5.24.0"})");
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice->candidates.front().version, "5.17.0");
  EXPECT_EQ(choice->candidates.size(), 1U);
  auto unknown = ChooseVersion(kMappings, "5.18.0", "{}");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.errors()[0].kind, ErrorKind::kUnknownVersion);
  EXPECT_NE(unknown.errors()[0].hint.find("5.9.0, 5.17.0, 5.24.0"), std::string::npos);
}

TEST(BuiltInMappingsTest, EveryOneParsesAndHasTheVersionOfItsName) {
  ASSERT_GE(BuiltInMappings().size(), 2U);
  Release last = {};
  for (const BuiltInMapping& mapping : BuiltInMappings()) {
    const auto registry = Registry::BuiltIn(mapping);
    ASSERT_TRUE(registry) << registry.errors()[0].ToString();
    EXPECT_EQ((*registry)->version(), "transformers " + std::string(mapping.version));
    const auto release = ParseRelease(mapping.version);
    ASSERT_TRUE(release);
    EXPECT_GT(*release, last);
    last = *release;
  }
}

}  // namespace
}  // namespace quantport
