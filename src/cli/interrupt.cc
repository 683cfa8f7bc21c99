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
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
  return &g_interrupted;
}

int InterruptedStatus() { return kInterrupted + g_signal.load(std::memory_order_relaxed); }

}  // namespace quantport::cli
