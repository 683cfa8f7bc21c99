// A plan's source files, and what each was when it was opened or, where the plan knows that, planned with.
#pragma once

#include <vector>

#include "io/file.h"
#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

struct Sources {
  std::vector<File> files;
  std::vector<FileStamp> stamps;
};

// Errors: every problem of opening them.
Result<Sources> OpenSources(const Plan& plan);

// Errors: kIo for every file that is not what it was.
Status CheckUnchanged(const Sources& sources);

}  // namespace quantport
