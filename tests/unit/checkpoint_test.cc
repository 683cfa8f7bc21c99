#include "checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "io/local_storage.h"
#include "support/checkpoint_builder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::ErrorLines;
using test::SafetensorsBytes;
using test::TempDir;
using test::TestTensor;
using test::WriteCheckpoint;
using test::WriteFile;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr std::string_view kFirst = "model-00001-of-00002.safetensors";
constexpr std::string_view kSecond = "model-00002-of-00002.safetensors";

TestTensor Bytes(const std::string& name) { return {name, "U8", {4}, {}}; }

void WriteShard(const fs::path& path, const std::vector<std::string>& names) {
  std::vector<TestTensor> tensors;
  for (const std::string& name : names) tensors.push_back(Bytes(name));
  WriteFile(path, SafetensorsBytes(tensors));
}

void WriteIndex(const fs::path& directory, const std::string& weight_map) {
  WriteFile(directory / "model.safetensors.index.json", "{\"weight_map\": {" + weight_map + "}}");
}

std::vector<std::string> Names(const TensorTable& table) {
  std::vector<std::string> names;
  for (const StoredTensor& tensor : table.tensors) names.push_back(tensor.info.name);
  return names;
}

std::vector<std::string> ShardNames(const TensorTable& table) {
  std::vector<std::string> names;
  for (const Shard& shard : table.shards) names.push_back(shard.name);
  return names;
}

// The errors with the file they are about: "file: Kind tensor: message".
std::vector<std::string> Located(const Errors& errors) {
  std::vector<std::string> lines;
  for (const Error& error : errors)
    lines.push_back(fs::path(error.file).filename().string() + ": " + ErrorLines(Errors{error})[0]);
  return lines;
}

std::vector<std::string> OpenErrors(const fs::path& directory, const OpenOptions& options = {}) {
  const auto checkpoint = OpenCheckpoint(LocalStorage(), directory, options);
  return checkpoint ? std::vector<std::string>() : Located(checkpoint.errors());
}

// ---- what is read -----------------------------------------------------------------------------------------------

TEST(CheckpointTest, ReadsASingleFile) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), "{}", {Bytes("a"), Bytes("b")});
  const auto checkpoint = OpenCheckpoint(LocalStorage(), dir.path());
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_THAT(Names(checkpoint->table), ElementsAre("a", "b"));
  EXPECT_THAT(ShardNames(checkpoint->table), ElementsAre("model.safetensors"));
  EXPECT_EQ(checkpoint->table.shards[0].file_bytes, fs::file_size(dir / "model.safetensors"));
  EXPECT_EQ(checkpoint->table.shards[0].data_start, checkpoint->table.shards[0].file_bytes - 8);
  EXPECT_THAT(checkpoint->table.shards[0].metadata, ElementsAre(testing::Pair("format", "pt")));
  ASSERT_TRUE(checkpoint->table.shards[0].stamp.has_value());
  EXPECT_EQ(checkpoint->table.shards[0].stamp->size, fs::file_size(dir / "model.safetensors"));
  EXPECT_FALSE(checkpoint->sharded);
  EXPECT_THAT(checkpoint->notes, IsEmpty());
  EXPECT_THAT(checkpoint->sidecars, ElementsAre("config.json"));
}

TEST(CheckpointTest, ReadsShardsWithTheirIndex) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), "{}", {Bytes("a"), Bytes("b"), Bytes("c")}, 2);
  const auto checkpoint = OpenCheckpoint(LocalStorage(), dir.path());
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_THAT(ShardNames(checkpoint->table), ElementsAre(kFirst, kSecond));
  EXPECT_THAT(Names(checkpoint->table), ElementsAre("a", "c", "b"));
  EXPECT_EQ(checkpoint->table.tensors[2].shard, 1u);
  EXPECT_TRUE(checkpoint->sharded);
  ASSERT_TRUE(checkpoint->index.has_value());
  EXPECT_EQ(checkpoint->index->total_size, 12u);
  EXPECT_THAT(checkpoint->notes, IsEmpty());
}

TEST(CheckpointTest, ReadsShardsWithoutAnIndexAndSaysSo) {
  const TempDir dir;
  WriteShard(dir / std::string(kFirst), {"a"});
  WriteShard(dir / std::string(kSecond), {"b"});
  const auto checkpoint = OpenCheckpoint(LocalStorage(), dir.path());
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_THAT(Names(checkpoint->table), ElementsAre("a", "b"));
  EXPECT_TRUE(checkpoint->sharded);
  EXPECT_FALSE(checkpoint->index.has_value());
  EXPECT_THAT(checkpoint->notes, ElementsAre("the index is rebuilt from the headers"));
}

TEST(CheckpointTest, FollowsTheSymbolicLinksOfAHubCache) {
  const TempDir dir;
  WriteShard(dir / "blobs/0123abcd", {"a"});
  WriteShard(dir / "blobs/4567ef01", {"b"});
  WriteIndex(dir / "blobs", "\"a\": \"model-00001-of-00002.safetensors\", \"b\": \"model-00002-of-00002.safetensors\"");
  const fs::path snapshot = dir / "snapshots/main";
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/0123abcd", snapshot / kFirst);
  fs::create_symlink("../../blobs/4567ef01", snapshot / kSecond);
  fs::create_symlink("../../blobs/model.safetensors.index.json", snapshot / "model.safetensors.index.json");
  const auto checkpoint = OpenCheckpoint(LocalStorage(), snapshot);
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_THAT(Names(checkpoint->table), ElementsAre("a", "b"));
  EXPECT_TRUE(checkpoint->index.has_value());
}

TEST(CheckpointTest, ListsSidecarsOfAllFoldersButHiddenOnes) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), "{}", {Bytes("a")});
  WriteFile(dir / "tokenizer.json", "{}");
  WriteFile(dir / ".gitattributes", "");
  WriteFile(dir / "assets/deep/logo.png", "");
  WriteFile(dir / "onnx/model.safetensors", "not even a header");
  WriteFile(dir / ".git/HEAD", "");
  WriteFile(dir / ".cache/huggingface/download/x.metadata", "");
  WriteFile(dir / "assets/.hidden/x", "");
  const auto checkpoint = OpenCheckpoint(LocalStorage(), dir.path());
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_THAT(checkpoint->sidecars, ElementsAre(".gitattributes", "assets/deep/logo.png", "config.json",
                                                "onnx/model.safetensors", "tokenizer.json"));
}

// ---- files of another naming ------------------------------------------------------------------------------------

TEST(CheckpointTest, LeavesOutFilesOfAnotherNamingWithANote) {
  for (const size_t shards : {1, 2}) {
    const TempDir dir;
    WriteCheckpoint(dir.path(), "{}", {Bytes("a"), Bytes("b")}, shards);
    WriteShard(dir / "consolidated.safetensors", {"a", "b", "other.name"});
    const auto checkpoint = OpenCheckpoint(LocalStorage(), dir.path());
    ASSERT_TRUE(checkpoint.ok());
    EXPECT_THAT(Names(checkpoint->table), ElementsAre("a", "b"));
    EXPECT_THAT(checkpoint->notes, ElementsAre("consolidated.safetensors is left out: its naming is not that of this "
                                               "checkpoint's shards"));
    EXPECT_THAT(checkpoint->sidecars, ElementsAre("config.json"));
  }
}

TEST(CheckpointTest, TakesTheOnlyNamingThereIs) {
  const TempDir dir;
  WriteShard(dir / "weights-00001-of-00001.safetensors", {"a"});
  const auto checkpoint = OpenCheckpoint(LocalStorage(), dir.path());
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_THAT(Names(checkpoint->table), ElementsAre("a"));
}

TEST(CheckpointTest, RefusesToChooseAmongSeveralNamings) {
  const TempDir dir;
  WriteShard(dir / "adapter.safetensors", {"a"});
  WriteShard(dir / "weights.safetensors", {"a"});
  const auto checkpoint = OpenCheckpoint(LocalStorage(), dir.path());
  ASSERT_FALSE(checkpoint.ok());
  EXPECT_EQ(checkpoint.errors()[0].ToString(),
            dir.path().string() +
                ": the folder has no index, and safetensors files of several namings: adapter, "
                "weights (keep one of them, or add an index)");
}

// ---- an index that lies -----------------------------------------------------------------------------------------

// Every way in which an index and the files beside it can contradict each other, in one folder.
void WriteLyingIndex(const fs::path& directory) {
  WriteShard(directory / "model-00001-of-00003.safetensors", {"a", "moved"});
  WriteShard(directory / "model-00002-of-00003.safetensors", {"b", "unlisted"});
  WriteShard(directory / "model-00004-of-00003.safetensors", {"d"});
  WriteShard(directory / "consolidated.safetensors", {"a"});
  WriteIndex(directory, R"("a": "model-00001-of-00003.safetensors", "moved": "model-00002-of-00003.safetensors",
                           "b": "model-00002-of-00003.safetensors", "ghost": "model-00002-of-00003.safetensors",
                           "c": "model-00003-of-00003.safetensors", "e": "model-00003-of-00003.safetensors")");
}

TEST(CheckpointTest, ListsEveryContradictionOfAnIndex) {
  const TempDir dir;
  WriteLyingIndex(dir.path());
  EXPECT_THAT(OpenErrors(dir.path()),
              UnorderedElementsAre(
                  "model-00003-of-00003.safetensors: InvalidIndexError the index names this shard, but it is missing",
                  "model-00004-of-00003.safetensors: InvalidIndexError a shard that the index does not name",
                  "model.safetensors.index.json: InvalidIndexError ghost: the index names this tensor, but no shard "
                  "holds it",
                  "model.safetensors.index.json: InvalidIndexError moved: the index places this tensor in "
                  "model-00002-of-00003.safetensors, but it is in model-00001-of-00003.safetensors",
                  "model-00002-of-00003.safetensors: InvalidIndexError unlisted: the index does not name this tensor"));
}

TEST(CheckpointTest, SaysHowToRepairAnIndex) {
  const TempDir dir;
  WriteShard(dir / "model.safetensors", {"a"});
  WriteIndex(dir.path(), R"("a": "model.safetensors", "ghost": "model.safetensors")");
  const auto checkpoint = OpenCheckpoint(LocalStorage(), dir.path());
  ASSERT_FALSE(checkpoint.ok());
  EXPECT_EQ(checkpoint.errors()[0].hint, "pass --repair-index to rebuild the index from the headers");
}

TEST(CheckpointTest, TrustsTheHeadersWhereTheIndexIsToBeRepaired) {
  const TempDir dir;
  WriteLyingIndex(dir.path());
  const auto checkpoint = OpenCheckpoint(LocalStorage(), dir.path(), {.repair_index = true});
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_THAT(Names(checkpoint->table), ElementsAre("a", "moved", "b", "unlisted", "d"));
  EXPECT_FALSE(checkpoint->index.has_value());
  EXPECT_THAT(checkpoint->sidecars, IsEmpty());
  EXPECT_THAT(checkpoint->notes, ElementsAre(testing::StartsWith("consolidated.safetensors is left out"),
                                             "the index is rebuilt from the headers"));
}

TEST(CheckpointTest, RepairsAnIndexThatCannotEvenBeRead) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), "{}", {Bytes("a"), Bytes("b")}, 2);
  WriteFile(dir / "model.safetensors.index.json", "{\"weight_map\": ");
  EXPECT_THAT(OpenErrors(dir.path()),
              ElementsAre("model.safetensors.index.json: InvalidIndexError the index is not a JSON object"));
  EXPECT_TRUE(OpenCheckpoint(LocalStorage(), dir.path(), {.repair_index = true}).ok());
}

TEST(CheckpointTest, RefusesAnIndexThatPointsOutsideTheFolder) {
  const TempDir dir;
  WriteShard(dir / "secret.safetensors", {"a"});
  WriteShard(dir / "checkpoint/model.safetensors", {"b"});
  WriteIndex(dir / "checkpoint", R"("a": "../secret.safetensors", "b": "model.safetensors", "b": "model.safetensors")");
  EXPECT_THAT(OpenErrors(dir / "checkpoint"),
              ElementsAre("model.safetensors.index.json: InvalidIndexError a: \"../secret.safetensors\" is not a plain "
                          "file name",
                          "model.safetensors.index.json: InvalidIndexError b: the name stands twice in weight_map"));
}

TEST(CheckpointTest, RefusesAnIndexWhoseShardIsNoSafetensorsFile) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), "{}", {Bytes("a")});
  WriteIndex(dir.path(), R"("a": "model.safetensors", "b": "config.json")");
  EXPECT_THAT(OpenErrors(dir.path()),
              ElementsAre("config.json: InvalidIndexError the index names this shard, but it is missing"));
}

// ---- shards that do not fit each other --------------------------------------------------------------------------

TEST(CheckpointTest, NoticesAMissingShardWithoutAnIndex) {
  const TempDir dir;
  WriteShard(dir / "model-00001-of-00003.safetensors", {"a"});
  WriteShard(dir / "model-00003-of-00003.safetensors", {"c"});
  const auto checkpoint = OpenCheckpoint(LocalStorage(), dir.path());
  ASSERT_FALSE(checkpoint.ok());
  ASSERT_EQ(checkpoint.errors().size(), 1u);
  EXPECT_EQ(checkpoint.errors()[0].ToString(),
            dir.path().string() +
                ": the folder has no index, and 2 of 3 shards (download the missing shards, or pass "
                "--repair-index to take what is there)");
  EXPECT_EQ(checkpoint.errors()[0].kind, ErrorKind::kInvalidIndex);
  EXPECT_TRUE(OpenCheckpoint(LocalStorage(), dir.path(), {.repair_index = true}).ok());
}

TEST(CheckpointTest, RefusesATensorInTwoShardsWhateverTheIndexSays) {
  const TempDir dir;
  WriteShard(dir / std::string(kFirst), {"a", "twice"});
  WriteShard(dir / std::string(kSecond), {"b", "twice"});
  const std::string error =
      "model-00002-of-00002.safetensors: InvalidIndexError twice: the tensor stands in "
      "model-00001-of-00002.safetensors as well";
  EXPECT_THAT(OpenErrors(dir.path()), ElementsAre(error));
  EXPECT_THAT(OpenErrors(dir.path(), {.repair_index = true}), ElementsAre(error));
  WriteIndex(dir.path(),
             R"("a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
                "twice": "model-00001-of-00002.safetensors")");
  EXPECT_THAT(OpenErrors(dir.path()), ElementsAre(error));
}

TEST(CheckpointTest, ReportsEveryBrokenHeader) {
  const TempDir dir;
  WriteFile(dir / "model-00001-of-00003.safetensors", "short");
  WriteShard(dir / "model-00002-of-00003.safetensors", {"b"});
  const std::string whole = SafetensorsBytes({Bytes("c")});
  WriteFile(dir / "model-00003-of-00003.safetensors", whole.substr(0, whole.size() - 1));
  EXPECT_THAT(OpenErrors(dir.path()),
              ElementsAre("model-00001-of-00003.safetensors: InvalidHeaderError the file has 5 bytes, too few for a "
                          "safetensors header",
                          "model-00003-of-00003.safetensors: InvalidHeaderError c: data_offsets [0, 4] point past the "
                          "end of the file's 3 data bytes"));
}

TEST(CheckpointTest, ReportsBrokenHeadersBesideAMissingShard) {
  const TempDir dir;
  WriteFile(dir / std::string(kFirst), "short");
  WriteIndex(dir.path(), "\"a\": \"model-00001-of-00002.safetensors\", \"b\": \"model-00002-of-00002.safetensors\"");
  EXPECT_THAT(OpenErrors(dir.path()), testing::SizeIs(2));
}

// ---- folders and files that are none ----------------------------------------------------------------------------

TEST(CheckpointTest, RefusesAFolderThatIsNone) {
  const TempDir dir;
  WriteFile(dir / "file", "");
  fs::create_directory(dir / "empty");
  EXPECT_THAT(OpenErrors(dir / "nowhere"), ElementsAre("nowhere: IoError no such folder"));
  EXPECT_THAT(OpenErrors(dir / "file"), ElementsAre("file: IoError not a folder"));
  EXPECT_THAT(OpenErrors(dir / "empty"), ElementsAre("empty: IoError no safetensors file in this folder"));
}

TEST(CheckpointTest, RefusesAFolderNamedLikeAShard) {
  const TempDir dir;
  fs::create_directory(dir / std::string(kFirst));
  WriteShard(dir / std::string(kSecond), {"b"});
  EXPECT_THAT(OpenErrors(dir.path()), testing::Not(IsEmpty()));
  WriteIndex(dir.path(), "\"a\": \"model-00001-of-00002.safetensors\", \"b\": \"model-00002-of-00002.safetensors\"");
  EXPECT_THAT(OpenErrors(dir.path()), ElementsAre("model-00001-of-00002.safetensors: InvalidIndexError the index names "
                                                  "this shard, but it is missing"));
}

TEST(CheckpointTest, RefusesAFifoInsteadOfWaitingForIt) {
  const TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(OpenErrors(dir.path()), ElementsAre("model.safetensors: IoError not a regular file"));
}

TEST(CheckpointTest, RefusesAShardWhoseLinkLeadsNowhere) {
  const TempDir dir;
  fs::create_symlink("../blobs/gone", dir / "model.safetensors");
  EXPECT_THAT(OpenErrors(dir.path()), ElementsAre("model.safetensors: IoError can't open: No such file or directory"));
}

TEST(CheckpointTest, RefusesAnIndexThatCannotBeOpened) {
  const TempDir dir;
  WriteShard(dir / "model.safetensors", {"a"});
  const fs::path index = dir / "model.safetensors.index.json";
  fs::create_directory(index);
  EXPECT_THAT(OpenErrors(dir.path()), ElementsAre("model.safetensors.index.json: IoError not a regular file"));
  fs::remove(index);
  ASSERT_EQ(::mkfifo(index.c_str(), 0600), 0);
  EXPECT_THAT(OpenErrors(dir.path()), ElementsAre("model.safetensors.index.json: IoError not a regular file"));
  fs::remove(index);
  fs::create_symlink("../blobs/gone", index);
  EXPECT_THAT(OpenErrors(dir.path()),
              ElementsAre("model.safetensors.index.json: IoError can't open: No such file or directory"));
}

// ---- references -------------------------------------------------------------------------------------------------

TEST(ReferenceTest, ReadsHeadersWhereThereAreSome) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), "{}", {Bytes("a"), Bytes("b")}, 2);
  const auto reference = OpenReference(LocalStorage(), dir.path());
  ASSERT_TRUE(reference.ok());
  EXPECT_THAT(reference->names, ElementsAre("a", "b"));
  EXPECT_TRUE(reference->table.has_value());
}

TEST(ReferenceTest, TakesAnIndexAlone) {
  const TempDir dir;
  WriteIndex(dir.path(), R"("b": "model-00001-of-00009.safetensors", "a": "model-00007-of-00009.safetensors")");
  for (const fs::path& path : {dir.path(), dir / "model.safetensors.index.json"}) {
    const auto reference = OpenReference(LocalStorage(), path);
    ASSERT_TRUE(reference.ok());
    EXPECT_THAT(reference->names, ElementsAre("b", "a"));
    EXPECT_FALSE(reference->table.has_value());
  }
}

TEST(ReferenceTest, RefusesAReferenceThatIsNone) {
  const TempDir dir;
  WriteFile(dir / "model.safetensors.index.json", "[]");
  EXPECT_THAT(ErrorLines(OpenReference(LocalStorage(), dir / "nowhere")),
              ElementsAre("IoError can't open: No such file or directory"));
  EXPECT_THAT(ErrorLines(OpenReference(LocalStorage(), dir.path())),
              ElementsAre("InvalidIndexError the index is not a JSON object"));
}

}  // namespace
}  // namespace quantport
