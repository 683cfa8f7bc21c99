// The extension module quantport._core. Python code of the package wraps it; programs use that.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "bindings.h"
#include "quantport/quantport.h"

NB_MODULE(_core, module) {
  module.doc() = "The engine of quantport. Private: the package quantport is the interface.";
  // A report that outlives the interpreter, in a global or a thread's frame, is no leak of ours.
  nanobind::set_leak_warnings(false);
  module.def(
      "version", [] { return std::string(quantport::Version()); }, "The library's version, \"0.1.0\".");
  quantport::python::BindReports(module);
  quantport::python::BindOptions(module);
  quantport::python::BindFiles(module);
  quantport::python::BindProgram(module);
  quantport::python::BindStateDict(module);
}
