// Stretches of rows over threads: each is measured before its group is quantized, and quantized once.
#include "exec/tile_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>

namespace quantport {
namespace {

// What happened to the stretches of a list of jobs, with `threads` workers.
struct Outcome {
  std::map<size_t, int> measured;
  std::map<size_t, int> searched;
  std::map<size_t, int> encoded;
  std::set<size_t> kept;
  size_t most_kept = 0;  // stretches in memory at once
  bool in_order = true;  // no stretch was quantized before its whole job was measured
};

Outcome WorkThrough(const std::vector<TileJob>& jobs, size_t room, int threads) {
  TileQueue queue(jobs, room);
  Outcome outcome;
  std::mutex mutex;
  std::map<size_t, size_t> measured_of_job;
  std::map<size_t, size_t> searched_of_job;
  size_t in_memory = 0;
  const auto work = [&] {
    while (const auto task = queue.Next()) {
      if (task->pass == TilePass::kMeasure) {
        {
          const std::lock_guard lock(mutex);
          ++outcome.measured[task->tile];
          ++measured_of_job[task->job];
          if (task->kept) outcome.kept.insert(task->tile);
          in_memory += task->kept ? 1 : 0;
          outcome.most_kept = std::max(outcome.most_kept, in_memory);
        }
        if (queue.Done(*task)) queue.Release(*task);
        continue;
      }
      if (task->pass == TilePass::kSearch) {
        {
          const std::lock_guard lock(mutex);
          ++outcome.searched[task->tile];
          ++searched_of_job[task->job];
          outcome.in_order &= measured_of_job[task->job] == jobs[task->job].count;
        }
        if (queue.Done(*task)) queue.Release(*task);
        continue;
      }
      {
        const std::lock_guard lock(mutex);
        ++outcome.encoded[task->tile];
        outcome.in_order &= !jobs[task->job].searched || searched_of_job[task->job] == jobs[task->job].count;
        outcome.in_order &= !jobs[task->job].measured || measured_of_job[task->job] == jobs[task->job].count;
        in_memory -= task->kept ? 1 : 0;
      }
      queue.Done(*task);
    }
  };
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
  return outcome;
}

std::vector<TileJob> Jobs(const std::vector<std::pair<size_t, bool>>& sizes) {
  std::vector<TileJob> jobs;
  size_t first = 0;
  for (const auto& [count, measured] : sizes) {
    jobs.push_back({first, count, measured, false});
    first += count;
  }
  return jobs;
}

TEST(TileQueueTest, QuantizesEveryStretchOnceAfterItsGroupWasMeasured) {
  const auto jobs = Jobs({{3, true}, {1, false}, {7, true}, {2, false}, {5, true}, {4, true}, {40, true}});
  for (const int threads : {1, 2, 8}) {
    const Outcome outcome = WorkThrough(jobs, 8, threads);
    EXPECT_TRUE(outcome.in_order);
    for (const TileJob& job : jobs) {
      for (size_t tile = job.first; tile < job.first + job.count; ++tile) {
        EXPECT_EQ(outcome.encoded.at(tile), 1);
        EXPECT_EQ(outcome.measured.contains(tile), job.measured);
      }
    }
  }
}

TEST(TileQueueTest, SearchesAGroupBetweenMeasuringAndQuantizingIt) {
  auto jobs = Jobs({{3, true}, {2, false}, {12, true}, {5, true}, {4, true}});
  jobs[0].searched = jobs[2].searched = jobs[4].searched = true;
  for (const int threads : {1, 2, 8}) {
    Outcome outcome = WorkThrough(jobs, 8, threads);
    EXPECT_TRUE(outcome.in_order);
    EXPECT_LE(outcome.most_kept, 8u);
    for (const TileJob& job : jobs) {
      for (size_t tile = job.first; tile < job.first + job.count; ++tile) {
        EXPECT_EQ(outcome.encoded.at(tile), 1);
        EXPECT_EQ(outcome.searched[tile], job.searched ? 1 : 0);
      }
    }
  }
}

TEST(TileQueueTest, KeepsNoMoreStretchesInMemoryThanThereIsRoomFor) {
  std::vector<std::pair<size_t, bool>> sizes;
  for (size_t i = 0; i < 60; ++i) sizes.emplace_back(1 + i % 6, true);
  for (const int threads : {1, 3, 8}) EXPECT_LE(WorkThrough(Jobs(sizes), 6, threads).most_kept, 6u);
}

TEST(TileQueueTest, ReadsGroupsThatDoNotFitAgain) {
  const Outcome outcome = WorkThrough(Jobs({{6, true}, {7, true}}), 6, 2);
  EXPECT_EQ(outcome.kept.size(), 6u);
  EXPECT_EQ(*outcome.kept.rbegin(), 5u);
}

TEST(TileQueueTest, EndsForEveryThreadWhenStopped) {
  TileQueue queue(Jobs({{2, true}, {100, false}}), 8);
  ASSERT_TRUE(queue.Next());
  std::thread waiting([&] {
    while (queue.Next()) queue.Stop();
  });
  waiting.join();
  EXPECT_FALSE(queue.Next());
}

TEST(TileQueueTest, HasNothingForNoJobs) {
  TileQueue queue({}, 4);
  EXPECT_FALSE(queue.Next());
}

}  // namespace
}  // namespace quantport
