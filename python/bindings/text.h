// Text of the library as Python strings.
#pragma once

#include <nanobind/nanobind.h>

#include <string_view>

namespace quantport::python {

// Messages and names may hold bytes of a stranger's file that are no UTF-8: they are written as \xNN.
inline nanobind::str Text(std::string_view text) {
  return nanobind::steal<nanobind::str>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "backslashreplace"));
}

}  // namespace quantport::python
