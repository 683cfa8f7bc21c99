// Carries out a quantize plan: what is left alone is copied, and every matrix is read, computed and written in
// stretches of rows, on several threads and with bounded memory.
#pragma once

#include <filesystem>
#include <vector>

#include "exec/copy.h"
#include "plan/quantize_plan.h"
#include "quantize/kernels.h"
#include "quantize/scales.h"
#include "quantport/error.h"

namespace quantport {

struct QuantizedReport {
  std::vector<quantize::ErrorSums> errors;  // of each of QuantizePlan::matrices
  std::vector<quantize::CastBlocks> casts;  // likewise
  std::vector<float> amax;                  // of each group; the largest power of two of one that is cast
  ExecReport copied;
};

// Writes the files of the plan as WriteFiles does. Memory: about 300 MB, and whatever a row takes where
// it is longer than 4 MB. Errors: as WriteFiles; kQuantConversionUnsupported naming a tensor with NaN or infinity.
Result<QuantizedReport> WriteQuantized(const QuantizePlan& plan, const Storage& storage, OutputFolder* folder,
                                       const std::filesystem::path& below, const ExecOptions& options);

}  // namespace quantport
