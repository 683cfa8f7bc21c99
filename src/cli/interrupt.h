// Ctrl-C and SIGTERM as a flag that the library's long calls look at.
#pragma once

#include <atomic>

namespace quantport::cli {

// From here on both signals only set the flag returned.
const std::atomic<bool>* CatchInterrupts();

// The exit status of a run that the last signal stopped.
int InterruptedStatus();

}  // namespace quantport::cli
