#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "base/json.h"
#include "diff/compare.h"
#include "diff/json_values.h"
#include "diff/side.h"
#include "io/local_storage.h"
#include "quantport/quantport.h"
#include "support/checkpoint_builder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using test::TempDir;
using test::TestTensor;
using test::WriteCheckpoint;
using test::WriteFile;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint64_t kMega = 1 << 20;

// ---- bytes ------------------------------------------------------------------------------------------------------

class CompareBytesTest : public testing::Test {
 protected:
  // Two files of the same bytes.
  void Write(uint64_t size) {
    bytes_ = test::FillBytes("bytes", size);
    WriteFile(dir_ / "a", bytes_);
    WriteFile(dir_ / "b", bytes_);
  }

  void WriteB(std::string bytes) { WriteFile(dir_ / "b", bytes); }

  Result<std::vector<ByteDifference>> Compare(const std::vector<BytePair>& pairs, const WorkOptions& options = {}) {
    std::vector<std::unique_ptr<const ByteSource>> files;
    for (const char* name : {"a", "b"}) files.push_back(std::move(*LocalStorage().OpenFile(dir_ / name)));
    return CompareBytes(files, pairs, options);
  }

  TempDir dir_;
  std::string bytes_;
};

TEST_F(CompareBytesTest, FindsEveryByteInWhateverWindow) {
  const uint64_t size = 13 * kMega + 5;
  Write(size);
  std::string changed = bytes_;
  for (const uint64_t at : {4 * kMega - 1, 4 * kMega, 9 * kMega, size - 1}) changed[at] ^= 1;
  WriteB(changed);
  for (const int threads : {1, 4}) {
    const auto found = Compare({{{{0, 0, size}}, {{1, 0, size}}, size}}, {threads, {}, nullptr});
    ASSERT_TRUE(found.ok());
    EXPECT_EQ((*found)[0].count, 4u);
    EXPECT_EQ((*found)[0].first, 4 * kMega - 1);
  }
}

TEST_F(CompareBytesTest, ReadsScatteredRangesInTheirOrder) {
  const uint64_t size = 10 * kMega;
  Write(size);
  // B holds what A has in two halves of unequal length, the other way round and with empty ranges between.
  const uint64_t cut = 3 * kMega + 7;
  WriteB(bytes_.substr(cut) + bytes_.substr(0, cut));
  const std::vector<FileRange> a = {{0, 0, 100}, {0, 100, 0}, {0, 100, size - 100}};
  const std::vector<FileRange> b = {{1, 0, 0}, {1, size - cut, cut}, {1, 0, size - cut}};
  const auto found = Compare({{a, b, size}, {{}, {}, 0}});
  ASSERT_TRUE(found.ok());
  EXPECT_EQ((*found)[0].count, 0u);
  EXPECT_EQ((*found)[1].count, 0u);
}

TEST_F(CompareBytesTest, ReportsProgressUpToTheEnd) {
  Write(9 * kMega);
  uint64_t last = 0;
  uint64_t all = 0;
  const auto found =
      Compare({{{{0, 0, 9 * kMega}}, {{1, 0, 9 * kMega}}, 9 * kMega}}, {2,
                                                                        [&](uint64_t done, uint64_t total) {
                                                                          EXPECT_GT(done, last);
                                                                          last = done;
                                                                          all = total;
                                                                        },
                                                                        nullptr});
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(last, 9 * kMega);
  EXPECT_EQ(all, 9 * kMega);
}

TEST_F(CompareBytesTest, StopsOnRequest) {
  Write(10);
  const std::atomic<bool> cancel = true;
  EXPECT_THAT(ErrorLines(Compare({{{{0, 0, 10}}, {{1, 0, 10}}, 10}}, {2, {}, &cancel})),
              ElementsAre("CancelledError stopped on request"));
}

TEST_F(CompareBytesTest, WhatAProgressFunctionThrowsComesOut) {
  Write(9 * kMega);
  const auto fail = [](uint64_t, uint64_t) { throw std::runtime_error("nobody watches"); };
  EXPECT_THROW((void)Compare({{{{0, 0, 9 * kMega}}, {{1, 0, 9 * kMega}}, 9 * kMega}}, {2, fail}), std::runtime_error);
}

TEST_F(CompareBytesTest, FileThatIsTooShortIsAnError) {
  Write(10);
  EXPECT_THAT(ErrorLines(Compare({{{{0, 0, 11}}, {{1, 0, 11}}, 11}})),
              ElementsAre("IoError the file ends at byte 10, 1 bytes too early"));
}

// ---- JSON -------------------------------------------------------------------------------------------------------

std::vector<std::string> ValueLines(const std::string& a, const std::string& b) {
  const auto json_a = ParseJson(a, "a", ErrorKind::kInvalidConfig);
  const auto json_b = ParseJson(b, "b", ErrorKind::kInvalidConfig);
  std::vector<std::string> lines;
  for (const FileDiff& diff : CompareJsonValues(*json_a, *json_b, "config.json"))
    lines.push_back(std::string(DiffKindName(diff.kind)) + " " + diff.path + ": " + diff.a + " | " + diff.b);
  return lines;
}

TEST(JsonValuesTest, NamesThePathOfEveryValue) {
  EXPECT_THAT(ValueLines(R"({"a": 1, "b": {"c": [1, {"d": 2}], "e": null}, "x.y": 1})",
                         R"({"a": 1, "b": {"c": [1, {"d": 3}, 4], "f": "g"}, "x.y": true})"),
              ElementsAre("content b.c[1].d: 2 | 3", "only_in_b b.c[2]:  | 4", "only_in_a b.e: null | ",
                          "only_in_b b.f:  | \"g\"", "content [\"x.y\"]: 1 | true"));
}

TEST(JsonValuesTest, OrderOfKeysIsNoDifference) {
  EXPECT_THAT(ValueLines(R"({"a": [{"x": 1, "y": Infinity}], "b": 1e-6})",
                         R"({"b": 0.000001, "a": [{"y": Infinity, "x": 1}]})"),
              IsEmpty());
}

TEST(JsonValuesTest, OrderOfListsIs) {
  EXPECT_THAT(ValueLines(R"({"a": ["x", "y"]})", R"({"a": ["y", "x"]})"),
              ElementsAre("content a[0]: \"x\" | \"y\"", "content a[1]: \"y\" | \"x\""));
}

TEST(JsonValuesTest, ExcludeListsSayWhatOnlyOneHas) {
  EXPECT_THAT(ValueLines(R"(["a", "b", "c", "d"])", R"(["x", "b", "c", "d", "a", "a"])"),
              ElementsAre("only_in_b []:  | \"a\"", "only_in_b []:  | \"x\""));
}

// ---- checkpoints ------------------------------------------------------------------------------------------------

Result<DiffReport> DiffOf(const std::filesystem::path& a, const std::filesystem::path& b, bool data = true) {
  DiffOptions options;
  options.a = a;
  options.b = b;
  options.data = data;
  return Diff(options);
}

std::vector<std::string> DiffLines(const DiffReport& report) {
  std::vector<std::string> lines;
  for (const TensorDiff& diff : report.tensors) lines.push_back(std::string(DiffKindName(diff.kind)) + " " + diff.name);
  return lines;
}

TEST(DiffTest, ListsEveryKindOfDifferenceByKindAndName) {
  const TempDir dir;
  WriteCheckpoint(dir / "a", "{}",
                  {{"same", "U8", {4}, {}},
                   {"l.10", "U8", {4}, {}},
                   {"l.9", "U8", {4}, {}},
                   {"dtype", "BF16", {4}, {}},
                   {"shape", "F32", {2, 2}, {}},
                   {"bytes", "F32", {2, 3}, std::string(24, 'x')}});
  WriteCheckpoint(dir / "b", "{}",
                  {{"bytes", "F32", {2, 3}, std::string(17, 'x') + "y" + std::string(6, 'x')},
                   {"shape", "F32", {4}, {}},
                   {"dtype", "U8", {2}, {}},
                   {"same", "U8", {4}, {}},
                   {"new", "U8", {1}, {}}});
  const auto report = DiffOf(dir / "a", dir / "b");
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(DiffLines(*report), ElementsAre("only_in_a l.9", "only_in_a l.10", "only_in_b new", "dtype dtype",
                                              "shape shape", "content bytes"));
  const TensorDiff& bytes = report->tensors.back();
  EXPECT_EQ(bytes.differing_bytes, 1u);
  EXPECT_THAT(bytes.first, ElementsAre(1, 1));
  EXPECT_EQ(report->equal_tensors, 1u);
  EXPECT_FALSE(report->Same());

  const auto names = DiffOf(dir / "a", dir / "b", false);
  ASSERT_TRUE(names.ok());
  EXPECT_EQ(names->tensors.size(), 5u);
  EXPECT_EQ(names->compared_bytes, 0u);
}

TEST(DiffTest, ReportsTheErrorsOfBothSides) {
  const TempDir dir;
  WriteFile(dir / "b/model.safetensors", "short");
  const auto report = DiffOf(dir / "nowhere", dir / "b");
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.errors().size(), 2u);
  EXPECT_EQ(report.errors()[0].kind, ErrorKind::kIo);
  EXPECT_EQ(report.errors()[1].kind, ErrorKind::kInvalidHeader);
}

TEST(DiffTest, PlannedTensorWhoseSourcesDoNotMakeItUpIsNotLocated) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), "{}", {{"a", "U8", {8}, {}}});
  const auto checkpoint = OpenCheckpoint(LocalStorage(), dir.path());
  ASSERT_TRUE(checkpoint.ok());
  PlanReport plan;
  const std::string file = "model.safetensors";
  plan.tensors.push_back(
      {file, "whole", DType::kU8, {8}, 0, 8, "plain", {{file, "a", 100, 5}, {file, "a", 90, 3}}, ""});
  plan.tensors.push_back({file, "part", DType::kU8, {8}, 0, 8, "plain", {{file, "a", 100, 5}}, ""});
  plan.tensors.push_back({file, "none", DType::kU8, {8}, 0, 8, "plain", {}, ""});
  const Side side = PlannedSide(*checkpoint, std::move(plan));
  EXPECT_TRUE(side.tensors[0].located);
  EXPECT_EQ(side.tensors[0].ranges[1].offset, 90u);
  EXPECT_FALSE(side.tensors[1].located);
  EXPECT_FALSE(side.tensors[2].located);
}

TEST(DiffTest, TextShowsFiveOfAKindUnlessAllAreAskedFor) {
  DiffReport report;
  for (int i = 0; i < 8; ++i)
    report.tensors.push_back({DiffKind::kOnlyInA, "m.weight" + std::to_string(i), TensorForm{}, {}, 0, {}});
  report.files.push_back({DiffKind::kContent, "config.json", "x", "1", std::string(200, '2')});
  const std::string some = DiffText(report);
  EXPECT_THAT(some, testing::HasSubstr("weight4"));
  EXPECT_THAT(some, testing::Not(testing::HasSubstr("weight5")));
  EXPECT_THAT(some, testing::HasSubstr("and 3 more"));
  EXPECT_THAT(some, testing::HasSubstr("2...2"));
  const std::string all = DiffText(report, true);
  EXPECT_THAT(all, testing::HasSubstr("weight7"));
  EXPECT_THAT(all, testing::HasSubstr(std::string(200, '2')));
}

}  // namespace
}  // namespace quantport
