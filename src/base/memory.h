// Memory that runs out is an error like any other to whoever uses the library.
#pragma once

#include <new>
#include <stdexcept>

#include "quantport/error.h"

namespace quantport {

inline Error OutOfMemory() {
  return Error{ErrorKind::kIo, "there is not enough memory", {}, {}, "free some, or use fewer threads"};
}

// The result of `call`, which may run out of memory; its destructors have cleaned up by then.
template <typename Call>
auto WithinMemory(const Call& call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  } catch (const std::length_error&) {  // more than any memory could hold
    return OutOfMemory();
  }
}

}  // namespace quantport
