#include "cli/interrupt.h"

#include <csignal>

#include "cli/exit_status.h"

namespace quantport::cli {
namespace {

std::atomic<bool> g_interrupted = false;
std::atomic<int> g_signal = 0;

void OnSignal(int signal) {
  g_signal.store(signal, std::memory_order_relaxed);
  g_interrupted.store(true, std::memory_order_relaxed);
}

}  // namespace

const std::atomic<bool>* CatchInterrupts() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    // What the caller ignores stays ignored: nohup has a program outlive its terminal so.
    if (std::signal(signal, OnSignal) == SIG_IGN) std::signal(signal, SIG_IGN);
  }
  // A file that grows beyond the limit of the process is an error of its write then.
  std::signal(SIGXFSZ, SIG_IGN);
  return &g_interrupted;
}

int InterruptedStatus() { return kInterrupted + g_signal.load(std::memory_order_relaxed); }

void EndByClosedPipe() {
  if (g_signal.load(std::memory_order_relaxed) != SIGPIPE) return;
  std::signal(SIGPIPE, SIG_DFL);
  (void)std::raise(SIGPIPE);
}

}  // namespace quantport::cli
