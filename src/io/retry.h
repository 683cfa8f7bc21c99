// System calls that a signal may interrupt.
#pragma once

#include <cerrno>

namespace quantport {

// Repeats a call that returns -1 for failure until no signal interrupts it.
template <typename Call>
auto Retry(Call call) {
  while (true) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

}  // namespace quantport
