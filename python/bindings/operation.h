// Long calls of the library from Python: without the GIL, with progress, and stopped by Ctrl-C.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>

#include "errors.h"
#include "quantport/error.h"

namespace quantport::python {

// What the library takes to report and to be stopped.
struct Watch {
  std::function<void(uint64_t done, uint64_t total)> progress;
  const std::atomic<bool>* cancel = nullptr;
};

// Runs `work` in a thread of its own. The calling thread looks for signals and calls `progress` (None, or a callable
// that takes two integers) until it is done. What a signal's handler or the callable raises stops the work; it is
// returned once the work has ended, and else nothing (an invalid object). The GIL must be held.
nanobind::object RunWatched(const nanobind::object& progress, const std::function<void(const Watch&)>& work);

// Stops all that runs, in whatever thread, waits for it and lets nothing begin any more: for the end of the
// interpreter. The GIL must be held.
void StopAll();

// Raises what stopped the work. Where stopping it left more to tell than that, `errors` are the exception's cause.
[[noreturn]] void RaiseStopped(const nanobind::object& stopped, const Errors& errors);

// The report of `call(watch)`, or an exception.
template <typename Report, typename Call>
Report RunOperation(const nanobind::object& progress, const Call& call) {
  std::optional<Result<Report>> result;
  const nanobind::object stopped = RunWatched(progress, [&](const Watch& watch) { result.emplace(call(watch)); });
  if (stopped.is_valid()) RaiseStopped(stopped, result->ok() ? Errors() : result->errors());
  return Unwrap(std::move(*result));
}

}  // namespace quantport::python
