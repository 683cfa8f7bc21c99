#include "operation.h"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

namespace nb = nanobind;

namespace quantport::python {
namespace {

// How long Ctrl-C may wait, and how often a bar is drawn; a run that ends is noticed at once.
constexpr std::chrono::milliseconds kPoll(50);

// What the worker thread says of itself.
class Worker {
 public:
  explicit Worker(const std::function<void(const Watch&)>& work) : thread_([this, &work] { Run(work); }) {}
  ~Worker() {
    if (!thread_.joinable()) return;
    Cancel();
    thread_.join();
  }

  // True once the work has ended.
  bool WaitABit() {
    std::unique_lock lock(mutex_);
    return ended_.wait_for(lock, kPoll, [this] { return has_ended_; });
  }

  std::pair<uint64_t, uint64_t> Progress() {
    const std::lock_guard lock(mutex_);
    return {done_, total_};
  }

  void Cancel() { cancel_.store(true, std::memory_order_relaxed); }

  void Join() { thread_.join(); }

  std::exception_ptr failure() const { return failure_; }

 private:
  void Run(const std::function<void(const Watch&)>& work) {
    try {
      work({[this](uint64_t done, uint64_t total) { SetProgress(done, total); }, &cancel_});
    } catch (...) {  // of memory that is not to be had
      failure_ = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    has_ended_ = true;
    ended_.notify_one();
  }

  void SetProgress(uint64_t done, uint64_t total) {
    const std::lock_guard lock(mutex_);
    done_ = done;
    total_ = total;
  }

  std::mutex mutex_;
  std::condition_variable ended_;
  bool has_ended_ = false;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
  std::atomic<bool> cancel_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // the last: it uses the others
};

// What runs now. Once the interpreter ends, a thread that waits for the GIL is ended in the middle of its C++, so all
// of it has to be stopped before that (StopAll).
class Running {
 public:
  // False once all has been stopped: nothing may begin any more.
  bool Add(Worker* worker) {
    const std::lock_guard lock(mutex_);
    if (stopped_) return false;
    workers_.insert(worker);
    return true;
  }

  void Remove(Worker* worker) {
    const std::lock_guard lock(mutex_);
    workers_.erase(worker);
    changed_.notify_all();
  }

  void CancelAll() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    for (Worker* worker : workers_) worker->Cancel();
  }

  void WaitForAll() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return workers_.empty(); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<Worker*> workers_;
  bool stopped_ = false;
};

Running& AllRunning() {
  static Running running;
  return running;
}

class Registration {
 public:
  explicit Registration(Worker* worker) : worker_(worker) {
    if (AllRunning().Add(worker)) return;
    PyErr_SetString(PyExc_RuntimeError, "the interpreter is ending: no operation can begin any more");
    throw nb::python_error();
  }
  ~Registration() { AllRunning().Remove(worker_); }
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

 private:
  Worker* worker_;
};

// The exception that was raised, with its traceback.
nb::object Raised(const nb::python_error& error) {
  if (error.traceback().is_valid()) (void)PyException_SetTraceback(error.value().ptr(), error.traceback().ptr());
  return nb::borrow(error.value());
}

// Calls the user's callable with what is new.
class Reporter {
 public:
  explicit Reporter(const nb::object& callable) : callable_(callable) {}

  nb::object Report(std::pair<uint64_t, uint64_t> progress) {
    if (callable_.is_none() || progress == last_) return {};
    last_ = progress;
    try {
      callable_(progress.first, progress.second);
    } catch (const nb::python_error& error) {
      return Raised(error);
    }
    return {};
  }

 private:
  const nb::object& callable_;
  std::pair<uint64_t, uint64_t> last_ = {0, 0};
};

// In other threads than the main one Python never has a signal to handle, and this finds none.
nb::object HandleSignals() {
  if (PyErr_CheckSignals() == 0) return {};
  return Raised(nb::python_error());
}

}  // namespace

nb::object RunWatched(const nb::object& progress, const std::function<void(const Watch&)>& work) {
  nb::object stopped;
  Reporter reporter(progress);
  Worker worker(work);
  const Registration registered(&worker);
  for (bool ended = false; !ended;) {
    {
      const nb::gil_scoped_release unlocked;
      ended = worker.WaitABit();
    }
    // A signal that comes when all is done is left for Python to handle after the call.
    if (!stopped.is_valid() && !ended) stopped = HandleSignals();
    if (!stopped.is_valid()) stopped = reporter.Report(worker.Progress());
    if (stopped.is_valid()) worker.Cancel();
  }
  worker.Join();
  if (worker.failure()) std::rethrow_exception(worker.failure());
  return stopped;
}

void StopAll() {
  AllRunning().CancelAll();
  const nb::gil_scoped_release unlocked;
  AllRunning().WaitForAll();
}

void RaiseStopped(const nb::object& stopped, const Errors& errors) {
  const bool told = errors.empty() || (errors.size() == 1 && errors.front().kind == ErrorKind::kCancelled);
  if (!told) PyException_SetCause(stopped.ptr(), ExceptionOf(errors).release().ptr());
  PyErr_SetObject(stopped.type().ptr(), stopped.ptr());
  throw nb::python_error();
}

}  // namespace quantport::python
