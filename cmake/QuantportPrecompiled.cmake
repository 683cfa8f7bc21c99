# Reading the headers of the standard library and fmt is a second of each file's compile time; a precompiled header reads them
# once per target. nlohmann's is not worth it: a file pays for it again, used or not. Files include what they use all the same,
# which the fuzz preset holds them to: it builds without.
#
# Only <system> headers may be listed: what CMake writes then holds no path, so a compiler cache serves every checkout.
function(quantport_precompile target)
  if(NOT QUANTPORT_PCH)
    return()
  endif()
  target_precompile_headers(${target} PRIVATE
    <algorithm> <array> <atomic> <bit> <charconv> <cmath> <cstddef> <cstdint> <cstring> <filesystem> <functional> <limits> <map>
    <memory> <mutex> <numeric> <optional> <set> <span> <string> <string_view> <thread> <unordered_map> <unordered_set> <utility>
    <variant> <vector> <fmt/format.h> ${ARGN})
  # With these ccache keeps what is compiled with a precompiled header (given sloppiness pch_defines,time_macros).
  target_compile_options(${target} PRIVATE
    $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess> "$<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>")
endfunction()
