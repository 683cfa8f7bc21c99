#include "errors.h"

#include <nanobind/nanobind.h>

#include "text.h"

namespace nb = nanobind;

namespace quantport::python {

nb::object ExceptionOf(const Errors& errors) {
  const nb::module_ module = nb::module_::import_("quantport.errors");
  const nb::object problem = module.attr("Problem");
  nb::list problems;
  for (const Error& error : errors) {
    problems.append(problem(Text(ErrorKindName(error.kind)), Text(error.message), Text(error.file), Text(error.tensor),
                            Text(error.hint)));
  }
  return module.attr("exception_of")(problems);
}

void Raise(const Errors& errors) {
  const nb::object exception = ExceptionOf(errors);
  PyErr_SetObject(exception.type().ptr(), exception.ptr());
  throw nb::python_error();
}

}  // namespace quantport::python
