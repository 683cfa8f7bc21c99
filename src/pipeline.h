// What the public functions do, with the folder that is written into given by the caller: tests have one that loses
// what was not synced.
#pragma once

#include "io/output_folder.h"
#include "prepare/prepare.h"
#include "quantport/quantize.h"
#include "quantport/quantport.h"

namespace quantport {

// `folder` is the one that options.output is to lie in.
Result<RevertReport> Convert(const RevertOptions& options, Direction direction, OutputFolder* folder);
Result<QuantizeReport> ConvertQuantized(const QuantizeOptions& options, OutputFolder* folder);
Result<QuantizeReport> ConvertDequantized(const DequantizeOptions& options, OutputFolder* folder);

// `folder` is options.input in place, else as above.
Result<RepairReport> RepairFiles(const RepairOptions& options, OutputFolder* folder);

// `folder` is options.input.
Result<RevertReport> ConvertInPlace(const RevertOptions& options, OutputFolder* folder);
Result<PlanReport> PlanConversion(const RevertOptions& options, const OutputFolder& folder);

Result<RecoverReport> FinishOrUndo(OutputFolder* folder, bool undo);

}  // namespace quantport
