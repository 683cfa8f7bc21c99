// What each file of bindings adds to the extension.
#pragma once

#include <nanobind/nanobind.h>

namespace quantport::python {

void BindReports(nanobind::module_& module);
void BindOptions(nanobind::module_& module);
void BindFiles(nanobind::module_& module);
void BindProgram(nanobind::module_& module);
void BindStateDict(nanobind::module_& module);

}  // namespace quantport::python
