// What the commands that write a checkpoint have in common.
#pragma once

#include <string_view>

#include "quantport/error.h"
#include "quantport/quantport.h"

namespace quantport::cli {

// Of "auto", "always" or "never".
Reflink ReflinkOf(std::string_view text);

// Tells the errors of a run that was to write, and whether an interruption left anything. The exit status.
int FailWriting(const Errors& errors, bool in_place, bool json);

}  // namespace quantport::cli
