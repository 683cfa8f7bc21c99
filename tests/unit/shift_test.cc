// Insertions of blocks that stopped half way: found, finished and taken back, from every block on.
#include "journal/shift.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "journal/replay.h"
#include "unit/changed_folder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::BytesOf;
using test::ChangedFolder;
using test::ErrorLines;
using test::kBlock;
using test::ReadFile;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

constexpr uint64_t kInserted = 2 * kBlock;
constexpr uint64_t kBlocks = 14;
const std::string kShard = "model.safetensors";

class ShiftTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!CanInsertRange(changed_.folder(), kBlock))
      GTEST_SKIP() << "the file system of " << changed_.folder() << " can't insert blocks";
    changed_.AddShard(kShard, 700, kBlocks * kBlock - 900, kInserted,
                      {{3 * kBlock + 5, std::string(100, 'p')}, {kBlocks * kBlock - 900, "appended"}});
    ASSERT_GT(change().extents.size(), 4u);
  }

  ShardChange& change() { return changed_.journal.shards[0]; }
  fs::path path() const { return changed_.folder() / kShard; }

  JournalReader Journal(const fs::path& folder) {
    auto reader = JournalReader::Open(folder);
    EXPECT_TRUE(reader.ok());
    return std::move(*reader);
  }
  JournalReader Journal() { return Journal(changed_.folder()); }

  File Open() {
    auto file = File::OpenForChange(path());
    EXPECT_TRUE(file.ok());
    return std::move(*file);
  }

  // As a loss of power may leave the file: unreadable, grown, and the blocks from `block` on moved.
  void ShiftFrom(uint64_t block) {
    File file = Open();
    ASSERT_TRUE(file.WriteAt(BytesOf(std::string_view("\0\0\0\0\0\0\0\0", 8)), 0).ok());
    ASSERT_TRUE(file.Sync().ok());
    // Nothing can be inserted at the end, but the file can have grown.
    if (block < kBlocks) {
      ASSERT_TRUE(InsertRange(&file, block * kBlock, kInserted).ok());
    } else {
      ASSERT_TRUE(file.SetSize(change().old_size + kInserted).ok());
    }
  }

  BlockShift Find() {
    const JournalReader journal = Journal();
    const auto folder = OpenOutputFolder(changed_.folder());
    auto file = folder->Open(kShard);
    EXPECT_TRUE(file.ok());
    auto shift = FindShift(**file, journal.journal().shards[0], journal);
    EXPECT_TRUE(shift.ok());
    return shift.ok() ? *shift : BlockShift{};
  }

  ChangedFolder changed_;
};

TEST_F(ShiftTest, NothingHasBegunInAnOldFile) {
  changed_.Publish();
  EXPECT_FALSE(Find().begun);
}

class PartialShiftTest : public ShiftTest, public testing::WithParamInterface<uint64_t> {
 protected:
  void SetUp() override {
    ShiftTest::SetUp();
    if (IsSkipped()) return;
    changed_.Publish();
    ShiftFrom(GetParam());
  }
};

INSTANTIATE_TEST_SUITE_P(Blocks, PartialShiftTest, testing::Range<uint64_t>(0, kBlocks + 1));

TEST_P(PartialShiftTest, IsFound) {
  const BlockShift shift = Find();
  EXPECT_TRUE(shift.begun);
  EXPECT_EQ(shift.gap, GetParam() * kBlock);
}

TEST_P(PartialShiftTest, IsFinished) {
  ASSERT_TRUE(Redo(Journal(), OpenOutputFolder(changed_.folder()).get()).ok());
  changed_.ExpectFiles(changed_.changed, "after finishing");
}

TEST_P(PartialShiftTest, IsTakenBack) {
  ASSERT_TRUE(Undo(Journal(), OpenOutputFolder(changed_.folder()).get()).ok());
  changed_.ExpectFiles(changed_.old, "after taking back");
}

TEST_P(PartialShiftTest, IsFinishedAfterItWasTakenBackHalfWay) {
  // Taking back moves the blocks before one place first.
  if (GetParam() == 0 || GetParam() > kBlocks - 3) return;
  File file = Open();
  ASSERT_TRUE(CollapseRange(&file, GetParam() * kBlock, kInserted).ok());
  ASSERT_TRUE(InsertRange(&file, (GetParam() + 2) * kBlock, kInserted).ok());
  ASSERT_TRUE(Redo(Journal(), OpenOutputFolder(changed_.folder()).get()).ok());
  changed_.ExpectFiles(changed_.changed, "after finishing");
}

TEST_P(PartialShiftTest, OfACopyIsRefusedUnlessAllHasMoved) {
  const test::TempDir copy;
  fs::copy(changed_.folder(), copy.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  const std::string before = ReadFile(copy / kShard);
  const auto status = Redo(Journal(copy.path()), OpenOutputFolder(copy.path()).get());
  if (GetParam() == 0) {
    ASSERT_TRUE(status.ok());
    EXPECT_TRUE(ReadFile(copy / kShard) == changed_.changed[kShard]);
    ASSERT_TRUE(Undo(Journal(copy.path()), OpenOutputFolder(copy.path()).get()).ok());
    EXPECT_TRUE(ReadFile(copy / kShard) == changed_.old[kShard]);
    return;
  }
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.errors()[0].kind, ErrorKind::kUnfinishedChange);
  EXPECT_EQ(status.errors()[0].file, (copy / kShard).string());
  EXPECT_TRUE(ReadFile(copy / kShard) == before) << "a file that can't be finished is left alone";
}

TEST_F(ShiftTest, ACopyOfAnUnchangedFileIsFinished) {
  changed_.Publish();
  const test::TempDir copy;
  fs::copy(changed_.folder(), copy.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  ASSERT_TRUE(Redo(Journal(copy.path()), OpenOutputFolder(copy.path()).get()).ok());
  EXPECT_TRUE(ReadFile(copy / kShard) == changed_.changed[kShard]);
}

// Otherwise a block that only looks gone would be taken for one that moved, and the file for a finished one.
TEST_F(ShiftTest, AFirstBlockThatIsElsewhereIsNotTakenForMoved) {
  std::vector<Extent>& extents = change().extents;
  ASSERT_GT(extents[0].bytes, kBlock);
  extents[0] = {kBlock, extents[0].physical + kBlock, extents[0].bytes - kBlock};
  changed_.Publish();
  ShiftFrom(1);
  const std::string before = ReadFile(path());
  EXPECT_THAT(ErrorLines(Redo(Journal(), OpenOutputFolder(changed_.folder()).get())),
              ElementsAre(HasSubstr("its first block is not where it was on the device")));
  EXPECT_TRUE(ReadFile(path()) == before);
}

TEST_F(ShiftTest, AFileOfAnotherSizeIsLeftAlone) {
  changed_.Publish();
  File file = Open();
  ASSERT_TRUE(file.SetSize(change().old_size + 1).ok());
  const std::string before = ReadFile(path());
  const std::vector<std::string> lines = ErrorLines(Redo(Journal(), OpenOutputFolder(changed_.folder()).get()));
  EXPECT_THAT(lines, ElementsAre(HasSubstr("its size is neither the old nor the new one")));
  EXPECT_THAT(ErrorLines(Undo(Journal(), OpenOutputFolder(changed_.folder()).get())), testing::ContainerEq(lines));
  EXPECT_TRUE(ReadFile(path()) == before);
}

TEST_F(ShiftTest, BlocksInAnOrderThatNoInterruptionLeavesAreLeftAlone) {
  changed_.Publish();
  // The second half of what has moved, moved once more.
  ShiftFrom(4);
  File file = Open();
  ASSERT_TRUE(InsertRange(&file, 12 * kBlock, kBlock).ok());
  ASSERT_TRUE(file.SetSize(change().old_size + kInserted).ok());
  EXPECT_THAT(ErrorLines(Undo(Journal(), OpenOutputFolder(changed_.folder()).get())),
              ElementsAre(HasSubstr("its blocks are in an order that no interruption leaves")));
}

TEST_F(ShiftTest, HolesOfAFileMoveWithItsBlocks) {
  constexpr uint64_t kSize = 64 * kBlock + 10;
  constexpr uint64_t kHeader = 500;
  // Within the first block, at the end of it, in the first hole, behind the second block, at the end.
  for (const uint64_t block : {0, 1, 17, 31, 64}) {
    SCOPED_TRACE(block);
    ChangedFolder changed;
    changed.AddShard(kShard, kHeader, kSize - kHeader, kInserted, {});
    const fs::path path = changed.folder() / kShard;
    auto file = File::OpenForChange(path);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->SetSize(0).ok());
    ASSERT_TRUE(file->WriteAt(BytesOf(changed.old[kShard].substr(0, kHeader)), 0).ok());
    ASSERT_TRUE(file->WriteAt(BytesOf("middle"), 30 * kBlock + 7).ok());
    ASSERT_TRUE(file->SetSize(kSize).ok());
    const std::string old = ReadFile(path);
    auto extents = FileExtents(*file);
    ASSERT_TRUE(extents.ok());
    ASSERT_EQ(extents->size(), 2u);
    changed.journal.shards[0].extents = *extents;
    changed.Publish();
    ASSERT_TRUE(InsertRange(&*file, block * kBlock, kInserted).ok());
    ASSERT_TRUE(Undo(Journal(changed.folder()), OpenOutputFolder(changed.folder()).get()).ok());
    EXPECT_TRUE(ReadFile(path) == old);
    ASSERT_TRUE(InsertRange(&*file, block * kBlock, kInserted).ok());
    ASSERT_TRUE(Redo(Journal(changed.folder()), OpenOutputFolder(changed.folder()).get()).ok());
    EXPECT_TRUE(ReadFile(path) == changed.changed[kShard].substr(0, kHeader + kInserted) + old.substr(kHeader));
  }
}

}  // namespace
}  // namespace quantport
