#include "exec/copy.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <random>

#include "support/checkpoint_builder.h"
#include "unit/copy_job.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::AddLargeFile;
using test::ErrorLines;
using test::FillBytes;
using test::Job;
using test::kMiB;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;
using testing::ElementsAre;
using testing::HasSubstr;

// Lowers the size that files may grow to, as a full disk would; works for root in any container.
class FileSizeLimit {
 public:
  FileSizeLimit() {
    old_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &old_);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

  void Set(rlim_t bytes) const {
    rlimit limit = old_;
    limit.rlim_cur = bytes;
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }

 private:
  rlimit old_ = {};
  void (*old_handler_)(int) = nullptr;
};

TEST(WriteFilesTest, PutsManyRangesOfSeveralFilesInTheirPlaces) {
  for (const int threads : {1, 2, 5}) {
    SCOPED_TRACE(threads);
    std::mt19937_64 random(static_cast<uint64_t>(threads));
    Job job;
    for (const uint64_t bytes : {3 * kMiB, 9 * kMiB, uint64_t{100}}) job.AddSource(bytes);
    for (int f = 0; f < 4; ++f) {
      job.AddFile(std::string(random() % 200 + 1, static_cast<char>('a' + f)));
      for (int t = 0; t < 40; ++t) {
        std::vector<quantport::Run> runs;
        for (uint64_t r = random() % 5 + 1; r > 0; --r) {
          const auto tensor = static_cast<uint32_t>(random() % 3);
          const uint64_t size = fs::file_size(job.plan.sources[tensor].address) - 5;
          const uint64_t source = random() % size;
          runs.push_back({tensor, source, 0, random() % std::min<uint64_t>(size - source, 400'000) + 1});
        }
        job.AddTensor(runs);
      }
    }
    ASSERT_GT(job.plan.TotalBytes(), 40 * kMiB);
    const auto status = job.Write(threads);
    ASSERT_TRUE(status.ok()) << status.errors()[0].ToString();
    job.ExpectWritten();
  }
}

TEST(WriteFilesTest, WritesHeadersLargerThanAWindowAndFilesWithoutData) {
  Job job;
  job.AddSource(100);
  job.AddFile(FillBytes("header", 9 * kMiB));
  job.AddTensor({{0, 10, 0, 20}});
  job.AddFile("only a header");
  ASSERT_TRUE(job.Write(2).ok());
  job.ExpectWritten();
}

TEST(WriteFilesTest, APlanWithoutFilesWritesNothing) {
  Job job;
  EXPECT_TRUE(job.Write().ok());
  EXPECT_TRUE(fs::is_empty(job.out()));
}

TEST(WriteFilesTest, ReportsProgressUpToTheWholeAndNeverBackwards) {
  Job job;
  AddLargeFile(&job);
  std::vector<uint64_t> seen;
  const auto progress = [&](uint64_t done, uint64_t total) {
    EXPECT_EQ(total, job.plan.TotalBytes());
    seen.push_back(done);
  };
  ASSERT_TRUE(job.Write(3, progress).ok());
  EXPECT_EQ(seen.size(), 6u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(seen.back(), job.plan.TotalBytes());
}

TEST(WriteFilesTest, StopsOnRequest) {
  for (const int threads : {1, 2}) {
    Job job;
    AddLargeFile(&job);
    std::atomic<bool> cancel = false;
    uint64_t last = 0;
    const auto progress = [&](uint64_t done, uint64_t) {
      last = done;
      cancel = true;
    };
    EXPECT_THAT(ErrorLines(job.Write(threads, progress, &cancel)), ElementsAre("CancelledError stopped on request"));
    EXPECT_LT(last, job.plan.TotalBytes());
  }
}

TEST(WriteFilesTest, DoesNotBeginWhereItIsCancelledAlready) {
  Job job;
  AddLargeFile(&job);
  const std::atomic<bool> cancel = true;
  bool any = false;
  EXPECT_THAT(ErrorLines(job.Write(
                  0, [&](uint64_t, uint64_t) { any = true; }, &cancel)),
              ElementsAre("CancelledError stopped on request"));
  EXPECT_FALSE(any);
}

TEST(WriteFilesTest, NoticesASourceThatShrank) {
  Job job;
  AddLargeFile(&job);
  fs::resize_file(job.plan.sources[1].address, kMiB);
  const auto status = job.Write(2);
  ASSERT_FALSE(status.ok());
  ASSERT_EQ(status.errors().size(), 1u);
  EXPECT_EQ(status.errors()[0].kind, ErrorKind::kIo);
  EXPECT_EQ(status.errors()[0].file, job.plan.sources[1].address);
  EXPECT_THAT(status.errors()[0].ToString(), HasSubstr("bytes too early (did it change while it was read?)"));
}

TEST(WriteFilesTest, NamesEverySourceThatCannotBeOpened) {
  Job job;
  AddLargeFile(&job);
  for (const PlanSource& source : job.plan.sources) fs::remove(source.address);
  EXPECT_THAT(ErrorLines(job.Write()), ElementsAre("IoError can't open: No such file or directory",
                                                   "IoError can't open: No such file or directory"));
  EXPECT_TRUE(fs::is_empty(job.out()));
}

TEST(WriteFilesTest, NeverWritesOverAFile) {
  Job job;
  AddLargeFile(&job);
  WriteFile(job.out() / "out-0", "precious");
  EXPECT_THAT(ErrorLines(job.Write()), ElementsAre("IoError can't create: File exists"));
  EXPECT_EQ(ReadFile(job.out() / "out-0"), "precious");
}

TEST(WriteFilesTest, ReportsThatThereIsNoSpaceBeforeItCopies) {
  Job job;
  AddLargeFile(&job);
  std::vector<std::string> errors;
  bool any = false;
  {
    const FileSizeLimit limit;
    limit.Set(kMiB);
    errors = ErrorLines(job.Write(0, [&](uint64_t, uint64_t) { any = true; }));
  }
  EXPECT_THAT(errors, ElementsAre(HasSubstr("File too large")));
  EXPECT_FALSE(any);
}

TEST(WriteFilesTest, ReportsAWriteThatFailsOnTheWay) {
  for (const int threads : {1, 2}) {
    Job job;
    AddLargeFile(&job);
    std::vector<std::string> errors;
    {
      const FileSizeLimit limit;
      const auto progress = [&](uint64_t, uint64_t) { limit.Set(1); };
      errors = ErrorLines(job.Write(threads, progress));
    }
    // With two threads the other window may be through before the limit comes; the third then fails.
    EXPECT_THAT(errors, ElementsAre("IoError can't write: File too large"));
  }
}

// ---- checks -----------------------------------------------------------------------------------------------------

TEST(RunChecksTest, PassesWhatIsEqual) {
  const TempDir dir;
  WriteFile(dir / "a", "--same--");
  WriteFile(dir / "b", "sa..me");
  Plan plan;
  plan.sources = {{dir / "a"}, {dir / "b"}};
  plan.checks = {{"input_scale", "x.input_scale", "y.input_scale", {{0, 2, 0, 4}}, {{1, 0, 0, 2}, {1, 4, 2, 2}}}};
  EXPECT_TRUE(RunChecks(plan, LocalStorage()).ok());
}

TEST(RunChecksTest, NamesBothTensorsOfEveryDifference) {
  const TempDir dir;
  WriteFile(dir / "a", "1234");
  Plan plan;
  plan.sources = {{dir / "a"}};
  plan.checks = {{"input_scale", "x.input_scale", "y.input_scale", {{0, 0, 0, 2}}, {{0, 2, 0, 2}}},
                 {"weight_scale_2", "x.weight_scale_2", "y.weight_scale_2", {{0, 1, 0, 1}}, {{0, 2, 0, 1}}},
                 {"weight_scale", "x.weight_scale", "y.weight_scale", {{0, 1, 0, 1}}, {{0, 1, 0, 1}}}};
  EXPECT_THAT(ErrorLines(RunChecks(plan, LocalStorage())),
              ElementsAre("QuantConversionUnsupportedError y.input_scale: its input_scale differs from that of "
                          "x.input_scale, and both weights become one",
                          "QuantConversionUnsupportedError y.weight_scale_2: its weight_scale_2 differs from that of "
                          "x.weight_scale_2, and both weights become one"));
}

TEST(RunChecksTest, ReportsAFileThatEndsTooEarly) {
  const TempDir dir;
  WriteFile(dir / "a", "12");
  Plan plan;
  plan.sources = {{dir / "a"}};
  plan.checks = {{"input_scale", "x", "y", {{0, 0, 0, 2}}, {{0, 1, 0, 2}}}};
  EXPECT_THAT(ErrorLines(RunChecks(plan, LocalStorage())),
              ElementsAre("IoError the file ends at byte 2, 1 bytes too early"));
}

}  // namespace
}  // namespace quantport
