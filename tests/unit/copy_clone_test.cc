// What the copier shares, which files it writes, and what it notices. The tests of sharing run where the temporary
// folder's file system can; tests/cli/clone_test.py runs them on such ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <random>
#include <thread>

#include "exec/copy.h"
#include "io/clone.h"
#include "unit/copy_job.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::AddLargeFile;
using test::ErrorLines;
using test::Job;
using test::kMiB;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kClonable = 128 << 10;  // more than 16 blocks of 4 KiB and less than 16 of 16 KiB

bool CanCloneHere(const Job& job) {
  const auto can = CanClone(**LocalStorage().OpenFile(job.plan.sources[0].address), job.out());
  EXPECT_TRUE(can.ok());
  return can.ok() && *can;
}

void DropFromCache(const fs::path& path) {
  auto file = File::OpenForReading(path);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->Sync().ok());
  file->AdviseDontNeed(0, 0);
}

// Headers of 4096 n + 5 bytes, so that data lies within blocks as in the sources, where it begins at 5.
void AddAlignedFiles(Job* job) {
  job->AddSource(9 * kMiB);
  job->AddSource(6 * kMiB + 123);
  job->AddFile(std::string(8192 + 5, 'h'));
  job->AddTensor({{0, 0, 0, 5 * kMiB}});
  job->AddLiteral(std::string(4096 * 3, 'l'));
  job->AddTensor({{1, 4096, 0, kClonable}, {0, 5 * kMiB + 77, 0, kMiB - 77}});
  job->AddTensor({{0, 6 * kMiB - 77, 0, 2 * kMiB}});
  // Up to the end of the source.
  job->AddFile(std::string(4096 + 5, 'i'));
  job->AddTensor({{1, 0, 0, 6 * kMiB + 123 - 5}});
  // Never alike.
  job->AddFile(std::string(4096 + 6, 'j'));
  job->AddTensor({{1, 0, 0, 6 * kMiB + 123 - 5}});
}

Result<ExecReport> WriteWith(const Job& job, CloneMode mode) {
  ExecOptions options;
  options.clone = mode;
  return WriteFiles(job.plan, LocalStorage(), OpenOutputFolder(job.out()).get(), "", options);
}

TEST(WriteFilesTest, ReadsAndWritesPastThePageCacheWhatIsNotInIt) {
  std::mt19937_64 random(7);
  Job job;
  for (const uint64_t bytes : {9 * kMiB, 5 * kMiB + 1}) job.AddSource(bytes);
  for (int f = 0; f < 3; ++f) {
    job.AddFile(std::string(random() % 9000 + 1, 'h'));
    for (int t = 0; t < 8; ++t) {
      const auto tensor = static_cast<uint32_t>(random() % 2);
      const uint64_t size = fs::file_size(job.plan.sources[tensor].address) - 5;
      const uint64_t source = random() % (size / 2);
      job.AddTensor({{tensor, source, 0, random() % (size - source) + 1}});
    }
  }
  for (const PlanSource& source : job.plan.sources) DropFromCache(source.address);
  auto report = WriteWith(job, CloneMode::kNever);
  ASSERT_TRUE(report.ok()) << report.errors()[0].ToString();
  EXPECT_EQ(report->cloned_bytes, 0u);
  EXPECT_EQ(report->copied_bytes, job.plan.TotalBytes());
  job.ExpectWritten();
}

TEST(WriteFilesTest, WritesTheSameBytesWhateverTheCloneMode) {
  for (const CloneMode mode : {CloneMode::kNever, CloneMode::kAuto}) {
    Job job;
    AddAlignedFiles(&job);
    auto report = WriteWith(job, mode);
    ASSERT_TRUE(report.ok()) << report.errors()[0].ToString();
    job.ExpectWritten();
    EXPECT_EQ(report->cloned_bytes + report->copied_bytes, job.plan.TotalBytes());
    EXPECT_EQ(report->cloned_bytes != 0, mode == CloneMode::kAuto && CanCloneHere(job));
  }
}

TEST(WriteFilesTest, SaysWhereBlocksCannotBeShared) {
  Job job;
  AddAlignedFiles(&job);
  if (CanCloneHere(job)) GTEST_SKIP() << "they can, here";
  EXPECT_THAT(ErrorLines(WriteWith(job, CloneMode::kAlways)), ElementsAre(HasSubstr("can't share blocks with")));
}

TEST(CloneTest, SharesAlignedBlocksAndCopiesTheEdges) {
  Job job;
  AddAlignedFiles(&job);
  if (!CanCloneHere(job)) GTEST_SKIP() << "the file system of the temporary folder can't share blocks";
  uint64_t first = 0;
  ExecOptions options;
  options.clone = CloneMode::kAlways;
  options.work.progress = [&](uint64_t done, uint64_t) { first = first == 0 ? done : first; };
  auto report = WriteFiles(job.plan, LocalStorage(), OpenOutputFolder(job.out()).get(), "", options);
  ASSERT_TRUE(report.ok()) << report.errors()[0].ToString();
  job.ExpectWritten();
  // 5 + 1/8 + 2 MiB of the first file, with a range's ends apart, and 6 of the second.
  EXPECT_LE(report->cloned_bytes, 13 * kMiB + kClonable);
  EXPECT_GE(report->cloned_bytes, 13 * kMiB - 8 * 4096);
  EXPECT_EQ(first, report->cloned_bytes);
}

TEST(CloneTest, ChangesNoSourceThroughWhatItShares) {
  Job job;
  AddAlignedFiles(&job);
  if (!CanCloneHere(job)) GTEST_SKIP() << "the file system of the temporary folder can't share blocks";
  const std::string before = test::ReadFile(job.plan.sources[0].address);
  ASSERT_TRUE(WriteWith(job, CloneMode::kAlways).ok());
  for (const PlannedFile& file : job.plan.files) test::WriteFile(job.out() / file.name, std::string(9 * kMiB, '!'));
  EXPECT_TRUE(test::ReadFile(job.plan.sources[0].address) == before);
}

TEST(WriteFilesTest, WritesOnlyTheFilesThatAreAskedFor) {
  Job job;
  AddAlignedFiles(&job);
  uint64_t last = 0;
  ExecOptions options;
  options.files = {{2, 0}};
  options.work.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_EQ(total, job.plan.files[0].bytes + job.plan.files[2].bytes);
    last = done;
  };
  auto report = WriteFiles(job.plan, LocalStorage(), OpenOutputFolder(job.out()).get(), "", options);
  ASSERT_TRUE(report.ok()) << report.errors()[0].ToString();
  EXPECT_EQ(last, job.plan.files[0].bytes + job.plan.files[2].bytes);
  EXPECT_EQ(report->cloned_bytes + report->copied_bytes, last);
  EXPECT_TRUE(test::ReadFile(job.out() / "out-0") == job.expected[0]);
  EXPECT_TRUE(test::ReadFile(job.out() / "out-2") == job.expected[2]);
  EXPECT_FALSE(fs::exists(job.out() / "out-1"));
}

// ---- sources that change ----------------------------------------------------------------------------------------

FileStamp StampOf(const fs::path& path) {
  auto file = File::OpenForReading(path);
  EXPECT_TRUE(file.ok());
  auto stamp = file->Stamp();
  EXPECT_TRUE(stamp.ok());
  return *stamp;
}

TEST(WriteFilesTest, TakesSourcesThatAreWhatThePlanSaw) {
  Job job;
  AddLargeFile(&job);
  job.plan.sources[0].stamp = StampOf(job.plan.sources[0].address);
  EXPECT_TRUE(job.Write().ok());
  job.ExpectWritten();
}

TEST(WriteFilesTest, RefusesSourcesThatChangedAfterThePlan) {
  Job job;
  AddLargeFile(&job);
  for (PlanSource& source : job.plan.sources) source.stamp = StampOf(source.address);
  --job.plan.sources[0].stamp->modified_ns;
  fs::rename(job.plan.sources[1].address, job.dir() / "moved");
  fs::copy_file(job.dir() / "moved", job.plan.sources[1].address);
  const auto status = job.Write();
  EXPECT_THAT(ErrorLines(status), ElementsAre("IoError the file changed while it was being read",
                                              "IoError the file changed while it was being read"));
  EXPECT_EQ(status.errors()[1].file, job.plan.sources[1].address);
  EXPECT_EQ(status.errors()[1].hint, "run again when nothing writes to it");
  EXPECT_TRUE(fs::is_empty(job.out()));
}

TEST(WriteFilesTest, RefusesASourceThatWasRewrittenWithItsModificationTimePutBack) {
  Job job;
  AddLargeFile(&job);
  for (PlanSource& source : job.plan.sources) source.stamp = StampOf(source.address);
  const fs::path path = job.plan.sources[0].address;
  const auto modified = fs::last_write_time(path);
  // Longer than the clock that files are stamped with takes to tick.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  std::fstream(path, std::ios::in | std::ios::out) << "other bytes";
  fs::last_write_time(path, modified);
  EXPECT_EQ(StampOf(path).modified_ns, job.plan.sources[0].stamp->modified_ns);
  EXPECT_EQ(StampOf(path).size, job.plan.sources[0].stamp->size);
  const auto status = job.Write();
  EXPECT_THAT(ErrorLines(status), ElementsAre("IoError the file changed while it was being read"));
  EXPECT_EQ(status.errors()[0].file, path.string());
}

TEST(WriteFilesTest, NoticesASourceThatChangesWhileItIsCopied) {
  Job job;
  AddLargeFile(&job);
  std::once_flag once;
  const auto progress = [&](uint64_t, uint64_t) {
    std::call_once(once, [&] { std::ofstream(job.plan.sources[1].address, std::ios::app) << "more"; });
  };
  const auto status = job.Write(2, progress);
  EXPECT_THAT(ErrorLines(status), ElementsAre("IoError the file changed while it was being read"));
  EXPECT_EQ(status.errors()[0].file, job.plan.sources[1].address);
}

TEST(RunChecksTest, RefusesSourcesThatChangedAfterThePlan) {
  Job job;
  AddLargeFile(&job);
  job.plan.checks = {{"input_scale", "x", "y", {{0, 0, 0, 2}}, {{0, 0, 0, 2}}}};
  job.plan.sources[0].stamp = StampOf(job.plan.sources[0].address);
  EXPECT_TRUE(RunChecks(job.plan, LocalStorage()).ok());
  ++job.plan.sources[0].stamp->size;
  EXPECT_THAT(ErrorLines(RunChecks(job.plan, LocalStorage())),
              ElementsAre("IoError the file changed while it was being read"));
}

}  // namespace
}  // namespace quantport
