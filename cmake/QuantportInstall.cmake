include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS quantport EXPORT quantportTargets FILE_SET HEADERS)
if(QUANTPORT_BUILD_PROGRAM)
  install(TARGETS quantport_program)
endif()
install(EXPORT quantportTargets NAMESPACE quantport:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/quantport)
configure_package_config_file(cmake/quantport-config.cmake.in quantport-config.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/quantport)
write_basic_package_version_file(quantport-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/quantport-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/quantport-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/quantport)
