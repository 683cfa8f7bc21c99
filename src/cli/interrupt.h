// Signals that end a program, as a flag that the library's long calls look at: what they began is cleaned up first.
#pragma once

#include <atomic>

namespace quantport::cli {

// From here on Ctrl-C, SIGTERM, SIGHUP and SIGPIPE only set the flag returned.
const std::atomic<bool>* CatchInterrupts();

// The exit status of a run that the last signal stopped.
int InterruptedStatus();

// Ends the program as a reader that goes away ends programs, where that was caught; else does nothing.
void EndByClosedPipe();

}  // namespace quantport::cli
