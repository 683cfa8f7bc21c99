#include "io/staging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/checkpoint_builder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::ErrorLines;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::StartsWith;

std::vector<std::string> Entries(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename().string());
  return names;
}

struct Output {
  explicit Output(const fs::path& target)
      : folder(OpenOutputFolder(FinalPath(target).parent_path())),
        staging(StagingDirectory::Create(folder.get(), FinalPath(target).filename().string())) {}

  std::unique_ptr<OutputFolder> folder;
  Result<StagingDirectory> staging;
};

const std::string kExists = "OutputExistsError the output exists already and is not an empty folder";

TEST(StagingTest, ShowsTheFolderOnlyWhenItIsCommitted) {
  const TempDir dir;
  Output output(dir / "out");
  auto& staging = output.staging;
  ASSERT_TRUE(staging.ok());
  WriteFile(staging->path() / "model.safetensors", "bytes");
  WriteFile(staging->path() / "assets/deep/logo.png", "logo");
  EXPECT_FALSE(fs::exists(dir / "out"));
  EXPECT_THAT(Entries(dir.path()), ElementsAre(StartsWith(".out.quantport-")));
  ASSERT_TRUE(staging->Commit().ok());
  EXPECT_THAT(Entries(dir.path()), ElementsAre("out"));
  EXPECT_EQ(ReadFile(dir / "out/model.safetensors"), "bytes");
  EXPECT_EQ(ReadFile(dir / "out/assets/deep/logo.png"), "logo");
}

TEST(StagingTest, LeavesTheCommittedFolderAloneWhenItGoesAway) {
  const TempDir dir;
  {
    Output output(dir / "out");
    auto& staging = output.staging;
    ASSERT_TRUE(staging.ok());
    WriteFile(staging->path() / "a", "1");
    ASSERT_TRUE(staging->Commit().ok());
  }
  EXPECT_EQ(ReadFile(dir / "out/a"), "1");
}

TEST(StagingTest, LeavesNothingWhenItIsNotCommitted) {
  const TempDir dir;
  {
    Output output(dir / "out");
    auto& staging = output.staging;
    ASSERT_TRUE(staging.ok());
    WriteFile(staging->path() / "deep/er/model.safetensors", "bytes");
    const StagingDirectory moved = std::move(*staging);
    EXPECT_TRUE(fs::exists(moved.path() / "deep/er/model.safetensors"));
  }
  EXPECT_THAT(Entries(dir.path()), IsEmpty());
}

TEST(StagingTest, TakesATargetWithATrailingSlash) {
  const TempDir dir;
  Output output(dir.path().string() + "/out/");
  auto& staging = output.staging;
  ASSERT_TRUE(staging.ok());
  ASSERT_TRUE(staging->Commit().ok());
  EXPECT_THAT(Entries(dir.path()), ElementsAre("out"));
}

TEST(StagingTest, CreatesTheFoldersAboveTheTarget) {
  const TempDir dir;
  Output output(dir / "a/b/out");
  auto& staging = output.staging;
  ASSERT_TRUE(staging.ok());
  ASSERT_TRUE(staging->Commit().ok());
  EXPECT_TRUE(fs::is_directory(dir / "a/b/out"));
}

TEST(StagingTest, ReplacesAnEmptyFolder) {
  const TempDir dir;
  fs::create_directory(dir / "out");
  Output output(dir / "out");
  auto& staging = output.staging;
  ASSERT_TRUE(staging.ok());
  WriteFile(staging->path() / "a", "1");
  ASSERT_TRUE(staging->Commit().ok());
  EXPECT_THAT(Entries(dir / "out"), ElementsAre("a"));
}

TEST(StagingTest, RefusesAnythingElseAtTheTarget) {
  const TempDir dir;
  WriteFile(dir / "full/a", "1");
  WriteFile(dir / "file", "1");
  fs::create_directory(dir / "empty");
  fs::create_symlink("empty", dir / "link");
  fs::create_symlink("nowhere", dir / "dangling");
  const auto before = Entries(dir.path());
  for (const std::string name : {"full", "file", "link", "dangling"}) {
    EXPECT_THAT(ErrorLines(Output(dir / name).staging), ElementsAre(kExists)) << name;
  }
  EXPECT_EQ(Entries(dir.path()), before);
  EXPECT_EQ(ReadFile(dir / "full/a"), "1");
}

TEST(StagingTest, SaysWhatToDoAboutAnExistingOutput) {
  const TempDir dir;
  WriteFile(dir / "out/a", "1");
  const auto status = CheckTargetFree(dir / "out");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.errors()[0].ToString(),
            (dir / "out").string() +
                ": the output exists already and is not an empty folder (choose another output, or remove it first)");
}

TEST(StagingTest, NeverReplacesAFolderThatAppearedMeanwhile) {
  const TempDir dir;
  {
    Output output(dir / "out");
    auto& staging = output.staging;
    ASSERT_TRUE(staging.ok());
    WriteFile(staging->path() / "a", "mine");
    WriteFile(dir / "out/a", "theirs");
    EXPECT_THAT(ErrorLines(staging->Commit()), ElementsAre(kExists));
  }
  EXPECT_THAT(Entries(dir.path()), ElementsAre("out"));
  EXPECT_EQ(ReadFile(dir / "out/a"), "theirs");
}

TEST(StagingTest, NeverReplacesAFileThatAppearedMeanwhile) {
  const TempDir dir;
  {
    Output output(dir / "out");
    auto& staging = output.staging;
    ASSERT_TRUE(staging.ok());
    WriteFile(dir / "out", "theirs");
    EXPECT_FALSE(staging->Commit().ok());
  }
  EXPECT_THAT(Entries(dir.path()), ElementsAre("out"));
  EXPECT_EQ(ReadFile(dir / "out"), "theirs");
}

TEST(StagingTest, ReportsAParentThatIsNoFolder) {
  const TempDir dir;
  WriteFile(dir / "file", "1");
  EXPECT_THAT(ErrorLines(Output(dir / "file/out").staging),
              ElementsAre(StartsWith("IoError can't create the folder: ")));
}

TEST(StagingTest, TakesOverWhatAKilledProcessOfTheSameNumberLeft) {
  const TempDir dir;
  std::string left;
  {
    Output output(dir / "out");
    const auto& staging = output.staging;
    ASSERT_TRUE(staging.ok());
    left = staging->path().filename().string();
  }
  WriteFile(dir / left / "stale", "1");
  Output output(dir / "out");
  auto& staging = output.staging;
  ASSERT_TRUE(staging.ok());
  ASSERT_TRUE(staging->Commit().ok());
  EXPECT_THAT(Entries(dir / "out"), IsEmpty());
}

}  // namespace
}  // namespace quantport
