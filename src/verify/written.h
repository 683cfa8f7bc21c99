// Re-reads what was written before it gets its final name.
#pragma once

#include <filesystem>

#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

// Holds every file's header, size and the index in `directory` against the plan, with the reader that opens
// strangers' checkpoints, not with the writer's code. `being_changed`: in place, so that a journal lies there.
// Errors: kVerification, kInvalidHeader, kInvalidIndex, kIo.
Status VerifyWritten(const Plan& plan, const std::filesystem::path& directory, bool being_changed = false);

}  // namespace quantport
