// Journals carried out and taken back, in any order and from strangers' folders.
#include "journal/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <random>

#include "quantport/quantport.h"
#include "unit/changed_folder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::ChangedFolder;
using test::ErrorLines;
using test::kBlock;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;
using testing::ElementsAre;
using testing::HasSubstr;

class ReplayTest : public testing::Test {
 protected:
  void SetUp() override {
    changed_.AddShard("same_room.safetensors", 600, 30000, 0,
                      {{0, std::string(50, 'a')}, {20000, std::string(9000, 'b')}, {30000, "more"}});
    changed_.AddShard("header_only.safetensors", 600, 0, 0, {});
    // The others are tested wherever the tests run.
    if (CanInsertRange(changed_.folder(), kBlock))
      changed_.AddShard("inserted.safetensors", 4000, 50000, kBlock, {{7, "seven"}, {50000, std::string(100, 'c')}});
    const std::string before = "before", after = "after";
    changed_.AddReplacement("config.json", &before, &after);
    changed_.AddReplacement("new.safetensors", nullptr, &after);
    changed_.AddReplacement("gone.safetensors", &before, nullptr);
    WriteFile(changed_.folder() / "other.txt", "other");
    changed_.old["other.txt"] = changed_.changed["other.txt"] = "other";
    changed_.Publish();
  }

  JournalReader Journal() {
    auto reader = JournalReader::Open(changed_.folder());
    EXPECT_TRUE(reader.ok());
    return std::move(*reader);
  }

  ChangedFolder changed_;
};

TEST_F(ReplayTest, DoingAndTakingBackInAnyOrderGivesOneOrTheOther) {
  std::mt19937 random(1);
  std::string order;
  for (int i = 0; i < 40; ++i) {
    const bool redo = random() % 2 == 0;
    order += redo ? 'R' : 'U';
    const auto status = redo ? Redo(Journal(), OpenOutputFolder(changed_.folder()).get())
                             : Undo(Journal(), OpenOutputFolder(changed_.folder()).get());
    ASSERT_TRUE(status.ok()) << status.errors()[0].ToString() << " " << order;
    changed_.ExpectFiles(redo ? changed_.changed : changed_.old, "after " + order);
  }
}

TEST_F(ReplayTest, BothGoOnFromEveryStepOfTheReplacements) {
  const fs::path staging = changed_.folder() / kStagingName;
  const auto move_away = [&] { fs::rename(changed_.folder() / "config.json", staging / "old/config.json"); };
  move_away();
  ASSERT_TRUE(Undo(Journal(), OpenOutputFolder(changed_.folder()).get()).ok());
  changed_.ExpectFiles(changed_.old, "taken back without the file");
  move_away();
  ASSERT_TRUE(Redo(Journal(), OpenOutputFolder(changed_.folder()).get()).ok());
  changed_.ExpectFiles(changed_.changed, "finished without the file");
}

TEST_F(ReplayTest, RetiringLeavesTheFilesOnly) {
  ASSERT_TRUE(Redo(Journal(), OpenOutputFolder(changed_.folder()).get()).ok());
  ASSERT_TRUE(Retire(OpenOutputFolder(changed_.folder()).get()).ok());
  EXPECT_FALSE(fs::exists(changed_.folder() / kJournalName));
  EXPECT_FALSE(fs::exists(changed_.folder() / kStagingName));
  changed_.ExpectFiles(changed_.changed, "when all is done");
}

TEST_F(ReplayTest, StopsBeforeTheFirstFileOnRequest) {
  const std::atomic<bool> cancel = true;
  EXPECT_THAT(ErrorLines(Redo(Journal(), OpenOutputFolder(changed_.folder()).get(), &cancel)),
              ElementsAre(HasSubstr("stopped on request")));
  changed_.ExpectFiles(changed_.old, "when nothing was begun");
}

TEST_F(ReplayTest, AShardThatIsALinkIsRefused) {
  const TempDir elsewhere;
  fs::rename(changed_.folder() / "same_room.safetensors", elsewhere / "behind");
  fs::create_symlink(elsewhere / "behind", changed_.folder() / "same_room.safetensors");
  EXPECT_FALSE(Redo(Journal(), OpenOutputFolder(changed_.folder()).get()).ok());
  EXPECT_FALSE(Undo(Journal(), OpenOutputFolder(changed_.folder()).get()).ok());
  EXPECT_TRUE(ReadFile(elsewhere / "behind") == changed_.old["same_room.safetensors"]);
}

TEST_F(ReplayTest, AShardWithAnotherNameIsRefusedBeforeAnythingChanges) {
  const TempDir elsewhere;
  fs::create_hard_link(changed_.folder() / "same_room.safetensors", elsewhere / "other");
  for (const bool redo : {true, false}) {
    const auto status = redo ? Redo(Journal(), OpenOutputFolder(changed_.folder()).get())
                             : Undo(Journal(), OpenOutputFolder(changed_.folder()).get());
    EXPECT_THAT(ErrorLines(status), ElementsAre(HasSubstr("a file with several names")));
    changed_.ExpectFiles(changed_.old, "when a file of others was refused");
  }
}

// A folder that was downloaded may say that what is to be replaced goes anywhere.
TEST_F(ReplayTest, NothingIsMovedThroughLinks) {
  for (const std::string& name : {std::string("old"), std::string("new"), std::string()}) {
    SCOPED_TRACE(name);
    const TempDir elsewhere;
    fs::create_directory(elsewhere / "old");
    fs::create_directory(elsewhere / "new");
    const fs::path staging = changed_.folder() / kStagingName / name;
    const fs::path aside = changed_.folder() / ".quantport-aside";
    fs::rename(name.empty() ? staging.parent_path() : staging, aside);
    fs::create_directory_symlink(elsewhere / name, name.empty() ? staging.parent_path() : staging);
    for (const bool redo : {true, false}) {
      const auto status = redo ? Redo(Journal(), OpenOutputFolder(changed_.folder()).get())
                               : Undo(Journal(), OpenOutputFolder(changed_.folder()).get());
      EXPECT_THAT(ErrorLines(status), ElementsAre(HasSubstr("not the folder that a change has here")));
      changed_.ExpectFiles(changed_.old, "when a link was refused");
      EXPECT_TRUE(fs::is_empty(elsewhere / "old"));
      EXPECT_TRUE(fs::is_empty(elsewhere / "new"));
    }
    fs::remove(name.empty() ? staging.parent_path() : staging);
    fs::rename(aside, name.empty() ? staging.parent_path() : staging);
  }
}

TEST_F(ReplayTest, NothingIsBegunWithoutWhatWasStaged) {
  fs::remove_all(changed_.folder() / kStagingName);
  EXPECT_THAT(ErrorLines(Redo(Journal(), OpenOutputFolder(changed_.folder()).get())),
              ElementsAre(HasSubstr("can't use what was staged")));
  changed_.ExpectFiles(changed_.old, "when nothing could be begun");
}

// An index chooses among files that names alone do not tell apart; a recovery has to end all the same.
TEST(RecoverTest, EndsWhereOnlyTheIndexTellsWhichFilesAreShards) {
  for (const bool undo : {false, true}) {
    ChangedFolder changed;
    const std::string shard = test::SafetensorsBytes({{"a", "U8", {3}, "abc"}});
    WriteFile(changed.folder() / "weights.safetensors", shard);
    WriteFile(changed.folder() / "adapter.safetensors", shard);
    WriteFile(changed.folder() / "model.safetensors.index.json",
              R"({"metadata": {"total_size": 3}, "weight_map": {"a": "weights.safetensors"}})");
    changed.Publish();
    const auto report = Recover(changed.folder(), undo);
    EXPECT_THAT(ErrorLines(report), testing::IsEmpty());
    EXPECT_FALSE(fs::exists(changed.folder() / kJournalName));
  }
}

}  // namespace
}  // namespace quantport
