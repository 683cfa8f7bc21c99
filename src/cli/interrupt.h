// Ctrl-C as a request to stop, which long commands look at.
#pragma once

#include <atomic>

namespace quantport::cli {

// From now on SIGINT and SIGTERM set the flag that is returned, and do nothing else.
const std::atomic<bool>* CatchInterrupts();

// The signal that was caught, 0 for none.
int CaughtSignal();

}  // namespace quantport::cli
