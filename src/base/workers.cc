#include "base/workers.h"

#include <algorithm>
#include <exception>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

#include "base/memory.h"

namespace quantport {
namespace {

// How the workers of one run ended.
class Outcome {
 public:
  explicit Outcome(const std::function<void()>& stop) : stop_(stop) {}

  void Run(const std::function<Status()>& work) noexcept {
    try {
      auto status = work();
      if (!status) Fail([&] { errors_ = std::move(status.errors()); });
    } catch (...) {
      Fail([&] { exception_ = std::current_exception(); });
    }
  }

  Status Take() {
    if (exception_) std::rethrow_exception(exception_);
    if (!errors_.empty()) return std::move(errors_);
    return {};
  }

 private:
  template <typename Keep>
  void Fail(Keep keep) {
    {
      const std::lock_guard lock(mutex_);
      if (std::exchange(failed_, true)) return;
      keep();
    }
    stop_();
  }

  const std::function<void()>& stop_;
  std::mutex mutex_;  // guards what follows until all workers have ended
  bool failed_ = false;
  Errors errors_;
  std::exception_ptr exception_;
};

}  // namespace

std::thread StartSystemThread(std::function<void()> body) { return std::thread(std::move(body)); }

Status WorkOptions::Continue() const {
  if (cancel == nullptr || !cancel->load(std::memory_order_relaxed)) return {};
  return Error{ErrorKind::kCancelled, "stopped on request", {}, {}, {}};
}

size_t WorkOptions::ThreadCount(unsigned least, unsigned most) const {
  if (threads > 0) return static_cast<size_t>(threads);
  return std::clamp(std::thread::hardware_concurrency(), least, most);
}

Status RunWorkers(size_t threads, const std::function<Status()>& work, const std::function<void()>& stop,
                  const StartThread& start) {
  Outcome outcome(stop);
  std::vector<std::thread> started;
  try {
    started.reserve(threads);
    while (started.size() + 1 < threads) started.push_back(start([&] { outcome.Run(work); }));
  } catch (const std::system_error&) {
    // At the limit of threads, or of memory for their stacks: the work is done by those that are there.
  } catch (const std::bad_alloc&) {
  }
  if (threads > 0) outcome.Run(work);
  for (std::thread& thread : started) thread.join();
  return WithinMemory([&] { return outcome.Take(); });
}

void Progress::Add(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  done_ += bytes;
  if (!report_ || threw_) return;
  threw_ = true;
  report_(done_, total_);
  threw_ = false;
}

}  // namespace quantport
