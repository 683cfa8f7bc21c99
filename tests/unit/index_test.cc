#include "safetensors/index.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;
using testing::Pair;

constexpr std::string_view kFile = "x/model.safetensors.index.json";

std::vector<std::string> Defects(const std::string& text) {
  const auto index = ParseIndex(text, kFile);
  if (!index) {
    for (const Error& error : index.errors()) EXPECT_EQ(error.file, kFile);
  }
  return ErrorLines(index);
}

TEST(IndexTest, ReadsTheMapInTheFilesOrder) {
  const auto index = ParseIndex(
      R"({"metadata": {"total_size": 12, "total_parameters": 3, "by": "x\"y", "more": {"a": [1, null]}},
          "weight_map": {"b": "model-00002-of-00002.safetensors", "a": "model-00001-of-00002.safetensors"},
          "extra": [1, 2]})",
      kFile);
  ASSERT_TRUE(index.ok());
  EXPECT_THAT(index->weight_map, ElementsAre(Pair("b", "model-00002-of-00002.safetensors"),
                                             Pair("a", "model-00001-of-00002.safetensors")));
  EXPECT_EQ(index->total_size, 12u);
  EXPECT_THAT(index->other_metadata,
              ElementsAre(Pair("total_parameters", "3"), Pair("by", R"("x\"y")"), Pair("more", R"({"a": [1, null]})")));
}

TEST(IndexTest, NeedsNoMetadata) {
  const auto index = ParseIndex(R"({"weight_map": {}})", kFile);
  ASSERT_TRUE(index.ok());
  EXPECT_THAT(index->weight_map, IsEmpty());
  EXPECT_EQ(index->total_size, std::nullopt);
  EXPECT_THAT(index->other_metadata, IsEmpty());
}

TEST(IndexTest, DropsATotalSizeThatIsNoWholeNumber) {
  for (const std::string size : {"1.0e10", "-1", "\"12\"", "null", "[12]"}) {
    const auto index = ParseIndex(R"({"metadata": {"total_size": )" + size + R"(}, "weight_map": {}})", kFile);
    ASSERT_TRUE(index.ok()) << size;
    EXPECT_EQ(index->total_size, std::nullopt) << size;
    EXPECT_THAT(index->other_metadata, IsEmpty()) << size;
  }
}

TEST(IndexTest, ReadsEscapedNames) {
  const auto index = ParseIndex(R"({"weight_map": {"a\n\u00e9": "\u0061.safetensors"}})", kFile);
  ASSERT_TRUE(index.ok());
  EXPECT_THAT(index->weight_map, ElementsAre(Pair("a\n\xc3\xa9", "a.safetensors")));
}

TEST(IndexTest, RefusesTextThatIsNoJsonObject) {
  for (const std::string text : {"", "x", "[]", "3", "{", R"({"weight_map": {"a": "b")", "\xff", "{\"\xff\": 1}"}) {
    EXPECT_THAT(Defects(text), ElementsAre("InvalidIndexError the index is not a JSON object")) << text;
  }
  EXPECT_THAT(Defects(R"({"weight_map"})"), ElementsAre("InvalidIndexError invalid JSON in the index"));
  EXPECT_THAT(Defects(R"({"weight_map": {"a" "b"}})"), ElementsAre("InvalidIndexError invalid JSON in weight_map"));
}

TEST(IndexTest, RefusesCharactersAfterTheObject) {
  EXPECT_THAT(Defects(R"({"weight_map": {}}{})"),
              ElementsAre("InvalidIndexError trailing characters after the index's JSON object"));
  EXPECT_FALSE(ParseIndex(R"({"weight_map": {}} x)", kFile).ok());
}

TEST(IndexTest, RefusesAnIndexWithoutAWeightMap) {
  EXPECT_THAT(Defects("{}"), ElementsAre("InvalidIndexError the index has no weight_map"));
  EXPECT_THAT(Defects(R"({"metadata": {}})"), ElementsAre("InvalidIndexError the index has no weight_map"));
}

TEST(IndexTest, RefusesAWeightMapThatMapsNoNamesToFiles) {
  EXPECT_THAT(Defects(R"({"weight_map": []})"), ElementsAre("InvalidIndexError weight_map is not an object"));
  EXPECT_THAT(Defects(R"({"weight_map": null})"), ElementsAre("InvalidIndexError weight_map is not an object"));
  for (const std::string value : {"1", "null", "[\"b\"]", "{}"}) {
    EXPECT_THAT(Defects(R"({"weight_map": {"a": )" + value + "}}"),
                ElementsAre("InvalidIndexError weight_map of \"a\" is not a file name"))
        << value;
  }
}

TEST(IndexTest, RefusesMetadataThatIsNoObject) {
  EXPECT_THAT(Defects(R"({"weight_map": {}, "metadata": 3})"),
              ElementsAre("InvalidIndexError metadata is not an object"));
}

TEST(IndexTest, RefusesMalformedMetadataBecauseItIsWrittenOutAgain) {
  const std::vector<std::string> values = {"nonsense", "[1,]", "[1 2]", "{\"a\": 01}",
                                           "\"\\q\"",  "{]",   "1e",    std::string("3\0", 2)};
  for (const std::string& value : values) {
    EXPECT_FALSE(ParseIndex(R"({"metadata": {"k": )" + value + R"(}, "weight_map": {}})", kFile).ok()) << value;
  }
}

TEST(IndexTest, RefusesAWeightMapThatStandsTwice) {
  EXPECT_THAT(Defects(R"({"weight_map": {"a": "b"}, "weight_map": {"a": "b"}})"),
              ElementsAre("InvalidIndexError weight_map stands twice"));
}

TEST(IndexTest, RefusesShardNamesThatReachOutsideTheFolder) {
  for (const std::string shard : {"../x", "/etc/passwd", "a/b.safetensors", "..", ".", ""}) {
    EXPECT_THAT(Defects(R"({"weight_map": {"a": ")" + shard + R"("}})"),
                ElementsAre(fmt::format("InvalidIndexError a: \"{}\" is not a plain file name", shard)));
  }
  EXPECT_THAT(Defects(R"({"weight_map": {"a": "..\\x"}})"),
              ElementsAre(R"(InvalidIndexError a: "..\x" is not a plain file name)"));
  EXPECT_THAT(Defects(R"({"weight_map": {"a": "\u002e\u002e/x"}})"),
              ElementsAre("InvalidIndexError a: \"../x\" is not a plain file name"));
  EXPECT_FALSE(ParseIndex(R"({"weight_map": {"a": "x\u0000.safetensors"}})", kFile).ok());
}

TEST(IndexTest, ListsEveryBadEntry) {
  EXPECT_THAT(Defects(R"({"weight_map": {"a": "../x", "b": "m", "c": "/y", "b": "m", "b": "n"}})"),
              ElementsAre("InvalidIndexError a: \"../x\" is not a plain file name",
                          "InvalidIndexError c: \"/y\" is not a plain file name",
                          "InvalidIndexError b: the name stands twice in weight_map",
                          "InvalidIndexError b: the name stands twice in weight_map"));
}

TEST(SerializeIndexTest, WritesAsTransformersDoes) {
  Index index;
  index.weight_map = {{"b", "model-00002-of-00002.safetensors"}, {"a", "model-00001-of-00002.safetensors"}};
  index.total_size = 12;
  index.other_metadata = {{"total_parameters", "3"}};
  EXPECT_EQ(SerializeIndex(index), R"({
  "metadata": {
    "total_parameters": 3,
    "total_size": 12
  },
  "weight_map": {
    "a": "model-00001-of-00002.safetensors",
    "b": "model-00002-of-00002.safetensors"
  }
}
)");
}

TEST(SerializeIndexTest, AnEmptyIndexIsStillJson) {
  const auto json = nlohmann::json::parse(SerializeIndex({}));
  EXPECT_TRUE(json["weight_map"].empty());
  EXPECT_TRUE(json["metadata"].empty());
}

TEST(SerializeIndexTest, RandomIndexesComeBackAsTheyWere) {
  std::mt19937 random(7);
  const std::vector<std::string> pieces = {"a", ".", "\"", "\\", "\n", "\x01", "\xc3\xa9", "\xf0\x9f\x98\x80", "0"};
  for (int round = 0; round < 500; ++round) {
    SCOPED_TRACE(round);
    Index index;
    for (size_t i = random() % 20; i > 0; --i) {
      std::string name;
      for (size_t k = random() % 5; k > 0; --k) name += pieces[random() % pieces.size()];
      index.weight_map.emplace_back(fmt::format("{}{}", name, i), fmt::format("model-{}.safetensors", random() % 3));
    }
    if (random() % 2 != 0) index.total_size = random();
    if (random() % 2 != 0) index.other_metadata.emplace_back("k", R"({"x": [1, "\"}"]})");
    const auto again = ParseIndex(SerializeIndex(index), kFile);
    ASSERT_TRUE(again.ok());
    std::sort(index.weight_map.begin(), index.weight_map.end());
    EXPECT_THAT(again->weight_map, ElementsAreArray(index.weight_map));
    EXPECT_EQ(again->total_size, index.total_size);
    EXPECT_THAT(again->other_metadata, ElementsAreArray(index.other_metadata));
  }
}

}  // namespace
}  // namespace quantport
