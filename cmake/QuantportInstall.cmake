include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS quantport EXPORT quantportTargets FILE_SET HEADERS)
if(TARGET quantport_cli)
  install(TARGETS quantport_cli EXPORT quantportTargets FILE_SET HEADERS)
endif()
if(QUANTPORT_BUILD_PROGRAM)
  install(TARGETS quantport_program)
  # Users have no use for what only debuggers read, thirty times the rest where there is debug information. The program of the
  # build tree keeps it.
  if(CMAKE_STRIP)
    install(CODE "execute_process(COMMAND \"${CMAKE_STRIP}\" \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/quantport\" COMMAND_ERROR_IS_FATAL ANY)")
  endif()
endif()
install(EXPORT quantportTargets NAMESPACE quantport:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/quantport)
configure_package_config_file(cmake/quantport-config.cmake.in quantport-config.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/quantport)
write_basic_package_version_file(quantport-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/quantport-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/quantport-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/quantport)
