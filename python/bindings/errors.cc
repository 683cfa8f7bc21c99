#include "errors.h"

#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace quantport::python {
namespace {

// Messages may quote bytes of a stranger's file that are no UTF-8.
nb::object Text(std::string_view text) {
  return nb::steal(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "backslashreplace"));
}

}  // namespace

void Raise(const Errors& errors) {
  const nb::module_ module = nb::module_::import_("quantport.errors");
  nb::list problems;
  for (const Error& error : errors) {
    problems.append(module.attr("Problem")(Text(ErrorKindName(error.kind)), Text(error.message), Text(error.file),
                                           Text(error.tensor), Text(error.hint), Text(error.ToString())));
  }
  const nb::object exception = module.attr("exception_of")(problems);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw nb::python_error();
}

}  // namespace quantport::python
