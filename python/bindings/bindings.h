// What each file of bindings adds to the extension.
#pragma once

#include <nanobind/nanobind.h>

namespace quantport::python {

void BindStateDict(nanobind::module_& module);

}  // namespace quantport::python
