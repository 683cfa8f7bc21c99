// What a change in place stages, and what it refuses before anything is touched. The rest is tested with the program:
// tests/cli/crash_test.py and tests/cli/in_place_fault_test.py.
#include "exec/in_place.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/folder_lock.h"
#include "journal/replay.h"
#include "support/checkpoint_builder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::ErrorLines;
using test::FillBytes;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kDataStart = 256;
constexpr uint64_t kDataBytes = 20000;

// A folder with one shard, its config, and a plan for it.
class InPlaceTest : public testing::Test {
 protected:
  InPlaceTest() {
    WriteFile(folder() / "a.safetensors", FillBytes("a", kDataStart + kDataBytes));
    WriteFile(folder() / "config.json", "old");
    plan_.sources = {{folder() / "a.safetensors"}};
    plan_.tensors = {{"t", 0, kDataStart}};
    PlannedFile file;
    file.name = "a.safetensors";
    file.header = FillBytes("header", kDataStart);
    file.bytes = kDataStart + kDataBytes;
    file.tensors.push_back({{"t", DType::kU8, {kDataBytes}, 0, kDataBytes}, {}, {{0, 0, 0, kDataBytes}}, {}});
    plan_.files.push_back(std::move(file));
    input_.plan = &plan_;
    input_.shards = {"a.safetensors"};
    input_.texts = {{"config.json", "new"}};
    input_.block_bytes = 4096;
    input_.may_clone = false;
  }

  fs::path folder() const { return dir_.path(); }
  PlannedFile& file() { return plan_.files[0]; }
  void Stay() { file().stays = StayingData{0, kDataStart, kDataBytes, {}, false}; }

  // Bytes of a scalar that several tensors get.
  void Append(uint64_t bytes) {
    file().tensors.push_back(
        {{"copy", DType::kU8, {bytes}, kDataBytes, kDataBytes + bytes}, {}, {{0, 0, 0, bytes}}, {}});
    file().bytes += bytes;
  }

  ChangeMethod MethodOfShard() {
    auto changes = ChooseChanges(input_, *OpenOutputFolder(folder()));
    EXPECT_TRUE(changes.ok());
    return changes->at(0).method;
  }

  Status StageAll() {
    auto changes = ChooseChanges(input_, *OpenOutputFolder(folder()));
    if (!changes) return changes.errors();
    auto report = Stage(input_, *changes, OpenOutputFolder(folder()).get(), {});
    if (!report) return report.errors();
    return {};
  }

  TempDir dir_;
  Plan plan_;
  InPlaceInput input_;
};

mode_t ModeOf(const fs::path& path) {
  struct stat info = {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return info.st_mode & 07777;
}

TEST_F(InPlaceTest, StagedFilesHavePermissionsOfThoseTheyReplace) {
  ASSERT_EQ(::chmod((folder() / "a.safetensors").c_str(), 0440), 0);
  ASSERT_EQ(::chmod((folder() / "config.json").c_str(), 0664), 0);
  // Only root may give files away.
  const uid_t user = ::geteuid() == 0 ? 1234 : ::geteuid();
  ASSERT_EQ(::chown((folder() / "config.json").c_str(), user, static_cast<gid_t>(-1)), 0);
  input_.texts["new.json"] = "new";
  ASSERT_THAT(ErrorLines(StageAll()), IsEmpty());
  EXPECT_EQ(ModeOf(folder() / kStagingName), 0700u) << "nobody else reads what others may not read";
  ASSERT_THAT(ErrorLines(ApplyJournal(OpenOutputFolder(folder()).get(), nullptr, [] { return Status(); })), IsEmpty());
  EXPECT_EQ(ModeOf(folder() / "a.safetensors"), 0440u);
  EXPECT_EQ(ModeOf(folder() / "config.json"), 0664u);
  EXPECT_TRUE(fs::exists(folder() / "new.json"));
  struct stat info = {};
  ASSERT_EQ(::stat((folder() / "config.json").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, user);
}

TEST_F(InPlaceTest, AFileThatReplacesALinkHasThePermissionsOfWhatTheLinkShows) {
  const TempDir cache;
  fs::rename(folder() / "config.json", cache / "blob");
  fs::create_symlink(cache / "blob", folder() / "config.json");
  ASSERT_EQ(::chmod((cache / "blob").c_str(), 0600), 0);
  input_.detach_links = true;
  ASSERT_THAT(ErrorLines(StageAll()), IsEmpty());
  ASSERT_THAT(ErrorLines(ApplyJournal(OpenOutputFolder(folder()).get(), nullptr, [] { return Status(); })), IsEmpty());
  EXPECT_FALSE(fs::is_symlink(folder() / "config.json"));
  EXPECT_EQ(ModeOf(folder() / "config.json"), 0600u);
  EXPECT_EQ(ReadFile(cache / "blob"), "old");
}

// As another user, since root may write anywhere.
class Unprivileged {
 public:
  explicit Unprivileged(const fs::path& folder) : root_(::geteuid() == 0) {
    if (!root_) return;
    EXPECT_EQ(::chown(folder.c_str(), kNobody, kNobody), 0);
    for (const auto& entry : fs::directory_iterator(folder))
      EXPECT_EQ(::chown(entry.path().c_str(), kNobody, kNobody), 0);
    EXPECT_EQ(::seteuid(kNobody), 0);
  }
  ~Unprivileged() {
    if (root_) {
      EXPECT_EQ(::seteuid(0), 0);
    }
  }

 private:
  static constexpr uid_t kNobody = 65534;
  const bool root_;
};

// Once there is a journal, it could be neither finished nor taken back.
TEST_F(InPlaceTest, AReadOnlyFileIsRefusedBeforeThereIsAJournal) {
  Stay();
  ASSERT_EQ(MethodOfShard(), ChangeMethod::kHeader);
  ASSERT_EQ(::chmod((folder() / "a.safetensors").c_str(), 0444), 0);
  const Unprivileged user(folder());
  EXPECT_THAT(ErrorLines(StageAll()), ElementsAre(HasSubstr("can't open for writing: Permission denied")));
  EXPECT_FALSE(fs::exists(folder() / kJournalName));
  EXPECT_FALSE(fs::exists(folder() / kStagingName));
}

TEST_F(InPlaceTest, WhatAProgressFunctionThrowsComesOutAndNothingIsLeft) {
  auto changes = ChooseChanges(input_, *OpenOutputFolder(folder()));
  ASSERT_TRUE(changes.ok());
  ExecOptions options;
  options.work.progress = [](uint64_t, uint64_t) { throw std::runtime_error("nobody watches"); };
  EXPECT_THROW((void)Stage(input_, *changes, OpenOutputFolder(folder()).get(), options), std::runtime_error);
  EXPECT_FALSE(fs::exists(folder() / kJournalName));
  EXPECT_FALSE(fs::exists(folder() / kStagingName));
}

TEST_F(InPlaceTest, ASourceWithoutAStampIsNotCompared) {
  Stay();
  EXPECT_THAT(ErrorLines(StageAll()), IsEmpty());
}

// Appended bytes are written to the journal and to the file.
TEST_F(InPlaceTest, WhereMoreWouldBeAppendedThanCopiedTheFileIsCopied) {
  Stay();
  Append(100);
  EXPECT_EQ(MethodOfShard(), ChangeMethod::kHeader);
  Append(kDataBytes + kDataStart);
  auto changes = ChooseChanges(input_, *OpenOutputFolder(folder()));
  ASSERT_TRUE(changes.ok());
  EXPECT_EQ(changes->at(0).method, ChangeMethod::kCopied);
  EXPECT_EQ(changes->at(0).reason, "that writes less than appending to it");
}

TEST_F(InPlaceTest, ANewFileTakesNoOthersName) {
  WriteFile(folder() / "carried-m.safetensors", "of another checkpoint");
  PlannedFile carried = file();
  carried.name = "carried-m.safetensors";
  plan_.files.push_back(std::move(carried));
  EXPECT_THAT(ErrorLines(ChooseChanges(input_, *OpenOutputFolder(folder()))),
              ElementsAre(HasSubstr("one is there that is no shard")));
  fs::remove(folder() / "carried-m.safetensors");
  EXPECT_THAT(ErrorLines(ChooseChanges(input_, *OpenOutputFolder(folder()))), IsEmpty());
}

}  // namespace
}  // namespace quantport
