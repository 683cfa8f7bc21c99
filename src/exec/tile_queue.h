// Hands stretches of rows to threads in an order in which each group's largest magnitude is known before its rows are
// quantized, and read only once where memory allows.
//
// A group whose scale depends on all of it is seen twice, or three times where the scale is searched for. While it
// fits, its stretches stay in memory in between; a larger one is read again, mostly out of the page cache. A group
// starts when it has memory for all of its stretches, one group after the other, so that no two wait for each other.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

namespace quantport {

// A stretch of rows of one matrix.
struct Tile {
  uint32_t matrix = 0;
  uint64_t first_row = 0;
  uint64_t rows = 0;
};

// Stretches that are handed out together: a group's, or one matrix's that needs no others.
struct TileJob {
  size_t first = 0;  // of the list of all stretches
  size_t count = 0;
  bool measured = false;  // its largest magnitude is needed first
  bool searched = false;  // and, that known, what each of several candidates costs
};

enum class TilePass : uint8_t {
  kMeasure,  // read, and find the largest magnitude
  kSearch,   // try candidates
  kEncode,   // quantize and write
};

struct TileTask {
  size_t job = 0;
  size_t tile = 0;
  TilePass pass = TilePass::kEncode;
  bool kept = false;  // in memory between the passes
};

// Safe in several threads.
class TileQueue {
 public:
  // `room`: stretches that may stay in memory.
  TileQueue(std::vector<TileJob> jobs, size_t room);

  // The next task; waits for one while others may still bring some. Nothing at the end, or after Stop.
  std::optional<TileTask> Next();
  // Tells that a task is done. True for the last one of a job's pass before kEncode, after which Release must be called
  // once what all of the job's next pass depends on is computed.
  bool Done(const TileTask& task);
  void Release(const TileTask& task);
  void Stop();

 private:
  bool CanStart() const;
  TileTask Start();

  const std::vector<TileJob> jobs_;
  const size_t room_;
  std::vector<bool> kept_;
  std::vector<size_t> unfinished_;  // stretches of each job in its pass
  size_t next_job_ = 0;
  size_t next_tile_ = 0;  // within it
  size_t free_ = 0;
  size_t running_ = 0;  // tasks, and jobs that wait for Release
  std::deque<TileTask> ready_;
  bool stopped_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace quantport
