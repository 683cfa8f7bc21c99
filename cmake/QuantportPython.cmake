# What the Python extension needs besides the library; a missing one is one error that says what to install.
find_package(Python 3.10 QUIET COMPONENTS Interpreter)
if(NOT Python_Interpreter_FOUND)
  message(FATAL_ERROR "quantport's Python package needs Python 3.10 or newer: install the Debian package python3 (apt-get install python3)")
endif()
find_package(Python 3.10 QUIET COMPONENTS Interpreter Development.Module OPTIONAL_COMPONENTS Development.SABIModule)
if(NOT Python_Development.Module_FOUND)
  message(FATAL_ERROR "quantport's Python package needs the headers of ${Python_EXECUTABLE}: install the Debian package python3-dev "
    "(apt-get install python3-dev)")
endif()

# nanobind is a Python package; pip puts it beside the interpreter that builds the wheel.
if(NOT nanobind_DIR)
  execute_process(COMMAND ${Python_EXECUTABLE} -m nanobind --cmake_dir OUTPUT_VARIABLE nanobind_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_package(nanobind QUIET CONFIG PATHS ${nanobind_DIR} NO_DEFAULT_PATH)
if(NOT nanobind_FOUND)
  message(FATAL_ERROR "quantport's Python package needs nanobind: install it for ${Python_EXECUTABLE} "
    "(python3 -m pip install nanobind), or build with `pip install .`, which brings it")
endif()
