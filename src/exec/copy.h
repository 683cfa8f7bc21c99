// Writes a plan's files by copying ranges, with bounded memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "exec/merged_scales.h"
#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

struct ExecOptions {
  int threads = 0;                                              // 0: chosen from the machine
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes; called from worker threads, one at a time
  const std::atomic<bool>* cancel = nullptr;                    // set from outside to stop
};

// Compares what the plan says must be equal. Errors: kQuantConversionUnsupported naming both tensors, kIo.
Status RunChecks(const Plan& plan);

struct ExecReport {
  std::vector<RescaleError> rescaled;
};

// Writes every file of the plan into `directory` and fsyncs it. Memory: one 8 MiB buffer a thread, two where elements
// are reordered. Errors: kIo, kCancelled, kQuantConversionUnsupported for scalars that can't be merged; what was
// written is left for the caller to remove.
Result<ExecReport> WriteFiles(const Plan& plan, const std::filesystem::path& directory, const ExecOptions& options);

}  // namespace quantport
