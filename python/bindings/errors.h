// Errors of the library as Python exceptions.
#pragma once

#include <utility>

#include "quantport/error.h"

namespace quantport::python {

// Raises the exception of quantport.errors for a non-empty list. The GIL must be held.
[[noreturn]] void Raise(const Errors& errors);

// The value, or the exception. The GIL must be held.
template <typename T>
T Unwrap(Result<T>&& result) {
  if (!result.ok()) Raise(result.errors());
  return std::move(*result);
}

}  // namespace quantport::python
