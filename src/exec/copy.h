// Writes a plan's files by sharing blocks and copying ranges, with bounded memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/workers.h"
#include "exec/clone_ranges.h"
#include "exec/merged_scales.h"
#include "io/output_folder.h"
#include "io/storage.h"
#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

struct ExecOptions {
  WorkOptions work;
  CloneMode clone = CloneMode::kAuto;
  std::optional<std::vector<size_t>> files = {};  // indices into Plan::files: only these are written; none: all
  // Plan::sources with other stamps, where the caller changed them itself; none: the plan's.
  std::optional<std::vector<PlanSource>> sources = {};
};

// What it means that a check failed.
Error UnequalScales(const std::string& leaf, const std::string& tensor_a, const std::string& tensor_b);

// Compares what the plan says must be equal. Errors: kQuantConversionUnsupported naming both tensors, kIo.
Status RunChecks(const Plan& plan, const Storage& storage);

struct ExecReport {
  std::vector<RescaleError> rescaled;
  uint64_t cloned_bytes = 0;  // blocks shared with the sources
  uint64_t copied_bytes = 0;  // everything else that was written
};

// Writes the files of the plan into a folder below `folder`, which is there; whoever shows them syncs them. Memory: one
// 4 MiB buffer a thread, two where elements are reordered. Errors: kIo, also where a source is not what the plan was
// made from or changed meanwhile; kCancelled; kQuantConversionUnsupported for scalars that can't be merged. What was
// written is left for the caller to remove.
Result<ExecReport> WriteFiles(const Plan& plan, const Storage& storage, OutputFolder* folder,
                              const std::filesystem::path& below, const ExecOptions& options);

}  // namespace quantport
