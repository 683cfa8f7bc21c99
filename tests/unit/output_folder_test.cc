#include "io/output_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "io/local_storage.h"
#include "support/losing_folder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::Disk;
using test::DiskState;
using test::ErrorLines;
using test::LosingFolder;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::StartsWith;

std::unique_ptr<const ByteSource> Source(const fs::path& path) {
  return std::move(*LocalStorage().OpenFile(path.string()));
}

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(OutputFolderTest, CopiesWhatALinkLeadsTo) {
  const TempDir dir;
  const auto folder = OpenOutputFolder(dir.path());
  const std::string bytes = test::FillBytes("f", 3'000'000);
  WriteFile(dir / "f", bytes);
  fs::create_symlink("f", dir / "link");
  ASSERT_TRUE(CopyIn(folder.get(), *Source(dir / "link"), "copy").ok());
  EXPECT_FALSE(fs::is_symlink(dir / "copy"));
  EXPECT_TRUE(ReadFile(dir / "copy") == bytes);
  WriteFile(dir / "empty", "");
  ASSERT_TRUE(CopyIn(folder.get(), *Source(dir / "empty"), "empty copy").ok());
  EXPECT_EQ(fs::file_size(dir / "empty copy"), 0u);
}

TEST(OutputFolderTest, NeverWritesOverAFile) {
  const TempDir dir;
  const auto folder = OpenOutputFolder(dir.path());
  WriteFile(dir / "f", "precious");
  EXPECT_THAT(ErrorLines(WriteText(folder.get(), "f", "x")), ElementsAre("IoError can't create: File exists"));
  EXPECT_THAT(ErrorLines(CopyIn(folder.get(), *Source(dir / "f"), "f")),
              ElementsAre("IoError can't create: File exists"));
  EXPECT_EQ(ReadFile(dir / "f"), "precious");
}

TEST(OutputFolderTest, MakesFoldersWithThoseAboveThem) {
  const TempDir dir;
  const auto folder = OpenOutputFolder(dir / "a/b");
  ASSERT_TRUE(folder->MakeFolder("").ok());
  const auto made = folder->MakeFolder("c/d", 0700);
  ASSERT_TRUE(made.ok());
  EXPECT_TRUE(*made);
  EXPECT_EQ(fs::status(dir / "a/b/c/d").permissions(), fs::perms::owner_all);
  const auto again = folder->MakeFolder("c/d");
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(*again);
  WriteFile(dir / "a/b/file", "");
  EXPECT_THAT(ErrorLines(folder->MakeFolder("file/c")), ElementsAre(StartsWith("IoError can't create the folder: ")));
}

TEST(OutputFolderTest, RemovesWhatIsThereAndIsContentWithNothing) {
  const TempDir dir;
  const auto folder = OpenOutputFolder(dir.path());
  WriteFile(dir / "c/d/file", "");
  WriteFile(dir / "file", "");
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(ErrorLines(folder->RemoveFolder("c")), IsEmpty());
    EXPECT_THAT(ErrorLines(folder->Remove("file")), IsEmpty());
  }
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(OutputFolderTest, StopsBetweenTwoSyncsOnRequest) {
  const TempDir dir;
  const auto folder = OpenOutputFolder(dir.path());
  ASSERT_TRUE(WriteText(folder.get(), "f", "x").ok());
  const std::atomic<bool> cancel = true;
  EXPECT_THAT(ErrorLines(folder->Sync(&cancel)), ElementsAre("CancelledError stopped on request"));
}

// ---- what a loss of power leaves -------------------------------------------------------------------------------

class LostPowerTest : public testing::Test {
 protected:
  using Files = std::map<std::string, std::string>;

  Files Left(bool unsynced) {
    return disk_.Left(disk_.changes(), [=](size_t) { return unsynced; }).Visible();
  }

  TempDir dir_;
  Disk disk_{DiskState{{{0, {}}}, {}}};
  LosingFolder folder_{dir_.path(), &disk_, {}};
};

TEST_F(LostPowerTest, ARenameShowsNothingThatWasNotSynced) {
  ASSERT_TRUE(folder_.MakeFolder("new/deep").ok());
  ASSERT_TRUE(WriteText(&folder_, "new/a", "1").ok());
  ASSERT_TRUE(WriteText(&folder_, "new/deep/b", "2").ok());
  ASSERT_TRUE(folder_.Rename("new", "old").ok());
  EXPECT_THAT(Left(false), IsEmpty()) << "the rename itself is not on the disk";
  ASSERT_TRUE(folder_.SyncFolder("").ok());
  EXPECT_THAT(Left(false), ElementsAre(Pair("old/a", "1"), Pair("old/deep/b", "2")));
}

TEST_F(LostPowerTest, ANewFileIsThereWhenItAndItsNameAreSynced) {
  auto file = folder_.Create("a");
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->WriteAt(Bytes("1"), 0).ok());
  EXPECT_THAT(Left(false), IsEmpty());
  ASSERT_TRUE(folder_.SyncFolder("").ok());
  EXPECT_THAT(Left(false), ElementsAre(Pair("a", ""))) << "a name without its data";
  EXPECT_TRUE((*file)->changed());
  ASSERT_TRUE(folder_.Sync().ok());
  EXPECT_THAT(Left(false), ElementsAre(Pair("a", "1")));
}

TEST_F(LostPowerTest, ALaterChangeOfASyncedFileIsLostAgain) {
  ASSERT_TRUE(WriteText(&folder_, "a", "1").ok());
  ASSERT_TRUE(folder_.Sync().ok());
  auto file = folder_.Open("a");
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->WriteAt(Bytes("2"), 0).ok());
  EXPECT_THAT(Left(false), ElementsAre(Pair("a", "1")));
  EXPECT_THAT(Left(true), ElementsAre(Pair("a", "2")));
  ASSERT_TRUE(folder_.Close(*file).ok());
  EXPECT_THAT(Left(false), ElementsAre(Pair("a", "2")));
}

}  // namespace
}  // namespace quantport
