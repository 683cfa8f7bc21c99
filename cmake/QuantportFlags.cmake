# Flags of this project's own targets; not exported to consumers.
add_library(quantport_flags INTERFACE)
target_compile_options(quantport_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports moved-from std::variant and std::string members as uninitialized at -O2 (GCC bug 105562 and kin), and
  # sums of short strings as copies past their end (105329 and kin). AddressSanitizer sees those that are real.
  target_compile_options(quantport_flags INTERFACE -Wno-maybe-uninitialized -Wno-restrict -Wno-array-bounds
    -Wno-stringop-overflow -Wno-stringop-overread)
endif()
if(QUANTPORT_WERROR)
  target_compile_options(quantport_flags INTERFACE -Werror)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_definitions(quantport_flags INTERFACE _GLIBCXX_ASSERTIONS)
endif()
if(QUANTPORT_SANITIZE)
  list(JOIN QUANTPORT_SANITIZE "," sanitizers)
  target_compile_options(quantport_flags INTERFACE -fsanitize=${sanitizers} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(quantport_flags INTERFACE -fsanitize=${sanitizers})
endif()
