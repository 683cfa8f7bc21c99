// The command line. It is linked into the extension and not put beside it as a program: the library is in the wheel
// once (6.0 MB instead of 10), and nothing depends on a file being found and executable where the package was put.
#include "quantport/program.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bindings.h"

namespace nb = nanobind;

namespace quantport::python {

void BindProgram(nb::module_& module) {
  module.def(
      "run_program",
      [](const std::vector<nb::bytes>& arguments) {
        std::vector<std::string> texts;
        for (const nb::bytes& argument : arguments) texts.emplace_back(argument.c_str(), argument.size());
        std::vector<char*> argv;
        for (std::string& text : texts) argv.push_back(text.data());
        argv.push_back(nullptr);
        const nb::gil_scoped_release unlocked;
        return RunProgram(static_cast<int>(texts.size()), argv.data());
      },
      nb::arg("arguments"),
      "Runs the command line, whose first argument is the program's name, and returns its exit status. Prints to the "
      "file descriptors 1 and 2, and takes over SIGINT and SIGTERM.");
}

}  // namespace quantport::python
