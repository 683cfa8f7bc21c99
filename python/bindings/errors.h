// Errors of the library as Python exceptions. The GIL must be held.
#pragma once

#include <nanobind/nanobind.h>

#include <utility>

#include "quantport/error.h"

namespace quantport::python {

// The exception of quantport.errors for a non-empty list.
nanobind::object ExceptionOf(const Errors& errors);

[[noreturn]] void Raise(const Errors& errors);

// The value, or the exception.
template <typename T>
T Unwrap(Result<T>&& result) {
  if (!result.ok()) Raise(result.errors());
  return std::move(*result);
}

}  // namespace quantport::python
