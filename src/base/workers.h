// Several threads at one task, with a bounded number of ways to end: done, an error, or an exception that comes out
// where the task was begun.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "quantport/error.h"

namespace quantport {

// Starts a thread. Throws std::system_error where the system has no more.
using StartThread = std::function<std::thread(std::function<void()>)>;
std::thread StartSystemThread(std::function<void()> body);

// Who waits for work that takes long, and how many threads it may take.
struct WorkOptions {
  int threads = 0;                                              // 0: chosen from the machine
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes; called from worker threads, one at a time
  const std::atomic<bool>* cancel = nullptr;                    // set from outside to stop
  StartThread start_thread = StartSystemThread;

  // kCancelled once the work is to stop.
  Status Continue() const;
  // `threads`, or else the machine's cores within these bounds: threads that wait for a disk may be more than cores.
  size_t ThreadCount(unsigned least, unsigned most) const;
};

// Runs `work` on the calling thread and on up to `threads` - 1 others, as many as can be started, and returns when all
// have ended. The first error is the result, as the cause of those that follow. `stop` is then called once, and must
// make the others return soon; it may be called while they run. An exception of `work` counts as an error: memory that
// ran out becomes one (kIo), any other is thrown again here.
Status RunWorkers(size_t threads, const std::function<Status()>& work, const std::function<void()>& stop,
                  const StartThread& start = StartSystemThread);

// Counts what several threads have done, and tells `report`, one thread at a time. Once `report` has thrown, it is left
// alone.
class Progress {
 public:
  // `report` may be empty.
  Progress(std::function<void(uint64_t done, uint64_t total)> report, uint64_t total)
      : report_(std::move(report)), total_(total) {}

  void Add(uint64_t bytes);

 private:
  const std::function<void(uint64_t done, uint64_t total)> report_;
  const uint64_t total_;
  std::mutex mutex_;
  uint64_t done_ = 0;  // guarded by mutex_, as is what follows
  bool threw_ = false;
};

}  // namespace quantport
