#include "base/workers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <system_error>

#include "exec/copy.h"
#include "io/local_storage.h"
#include "unit/copy_job.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using testing::ElementsAre;
using testing::IsEmpty;

Error Failed(const std::string& message) { return Error{ErrorKind::kIo, message, {}, {}, {}}; }

// Starts so many threads, and then fails like a system that is at its limit.
StartThread AtMost(int* left) {
  return [left](std::function<void()> body) {
    if ((*left)-- <= 0) throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
    return StartSystemThread(std::move(body));
  };
}

TEST(RunWorkersTest, RunsOnEveryThreadThatCanBeStartedAndOnTheCallingOne) {
  for (const int can_start : {0, 2, 100}) {
    int left = can_start;
    std::atomic<int> ran = 0;
    std::atomic<bool> here = false;
    const auto caller = std::this_thread::get_id();
    const auto work = [&]() -> Status {
      ++ran;
      if (std::this_thread::get_id() == caller) here = true;
      return {};
    };
    EXPECT_THAT(ErrorLines(RunWorkers(
                    5, work, [] { ADD_FAILURE() << "nothing failed"; }, AtMost(&left))),
                IsEmpty());
    EXPECT_EQ(ran, std::min(can_start, 4) + 1);
    EXPECT_TRUE(here);
  }
}

TEST(RunWorkersTest, WithoutWorkNoThreadRuns) {
  EXPECT_THAT(ErrorLines(RunWorkers(
                  0, []() -> Status { return Failed("ran"); }, [] {})),
              IsEmpty());
}

TEST(RunWorkersTest, TheFirstErrorStopsTheOthersAndIsTheResult) {
  for (const size_t threads : {1, 4}) {
    std::atomic<int> number = 0;
    std::atomic<bool> stopped = false;
    int stops = 0;
    const auto work = [&]() -> Status {
      if (number.fetch_add(1) == 0) return Failed("first");
      while (!stopped) std::this_thread::yield();
      return Failed("a consequence");
    };
    const auto stop = [&] {
      ++stops;
      stopped = true;
    };
    EXPECT_THAT(ErrorLines(RunWorkers(threads, work, stop)), ElementsAre("IoError first"));
    EXPECT_EQ(stops, 1);
  }
}

TEST(RunWorkersTest, AnExceptionOfAnyThreadStopsTheOthersAndComesOut) {
  for (const bool on_caller : {true, false}) {
    const auto caller = std::this_thread::get_id();
    std::atomic<bool> stopped = false;
    const auto work = [&]() -> Status {
      if ((std::this_thread::get_id() == caller) == on_caller) throw std::runtime_error("of a callback");
      while (!stopped) std::this_thread::yield();
      return {};
    };
    EXPECT_THROW((void)RunWorkers(2, work, [&] { stopped = true; }), std::runtime_error);
  }
}

TEST(RunWorkersTest, MemoryThatRunsOutIsAnError) {
  EXPECT_THAT(ErrorLines(RunWorkers(
                  3, []() -> Status { throw std::bad_alloc(); }, [] {})),
              ElementsAre("IoError there is not enough memory"));
}

TEST(ProgressTest, AddsUpOfSeveralThreadsAndReportsOneAtATime) {
  std::atomic<int> inside = 0;
  uint64_t last = 0;
  Progress progress(
      [&](uint64_t done, uint64_t total) {
        EXPECT_EQ(++inside, 1);
        EXPECT_GT(done, last);
        EXPECT_EQ(total, 4000u);
        last = done;
        --inside;
      },
      4000);
  const auto work = [&]() -> Status {
    for (int i = 0; i < 1000; ++i) progress.Add(1);
    return {};
  };
  ASSERT_TRUE(RunWorkers(4, work, [] {}).ok());
  EXPECT_EQ(last, 4000u);
}

TEST(ProgressTest, NobodyNeedListen) { Progress({}, 1).Add(1); }

TEST(WriteFilesTest, GoesOnWithFewerThreadsWhereNoMoreCanBeStarted) {
  for (const int can_start : {0, 1}) {
    test::Job job;
    test::AddLargeFile(&job);
    int left = can_start;
    ExecOptions options;
    options.work.threads = 4;
    options.work.start_thread = AtMost(&left);
    const auto report = WriteFiles(job.plan, LocalStorage(), OpenOutputFolder(job.out()).get(), "", options);
    ASSERT_TRUE(report.ok());
    EXPECT_LT(left, 0) << "it tried";
    job.ExpectWritten();
  }
}

}  // namespace
}  // namespace quantport
