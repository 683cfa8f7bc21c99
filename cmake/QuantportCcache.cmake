# ccache keeps what is compiled with a precompiled header only when told that its macros may be taken as they are.
if(QUANTPORT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(QUANTPORT_CCACHE_PROGRAM ccache)
  mark_as_advanced(QUANTPORT_CCACHE_PROGRAM)
  if(QUANTPORT_CCACHE_PROGRAM)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${QUANTPORT_CCACHE_PROGRAM})
  endif()
endif()
