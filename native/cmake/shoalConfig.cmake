# find_package(shoal) in a package of environments: `shoal_add_environments(native/my_env.hpp ...)` builds its module.
include(${CMAKE_CURRENT_LIST_DIR}/environments.cmake)
get_filename_component(SHOAL_INCLUDE_DIR ${CMAKE_CURRENT_LIST_DIR}/../include ABSOLUTE)

# The target _native: an extension module with the environments of these headers, one in each. find_package(nanobind)
# comes before.
function(shoal_add_environments)
  set(headers ${ARGN})
  list(TRANSFORM headers PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  set(generated ${CMAKE_CURRENT_BINARY_DIR}/generated)
  shoal_write_includes(${CMAKE_CURRENT_SOURCE_DIR} ${generated} environment_headers environments SHOAL_ENVIRONMENT
    ${headers})
  nanobind_add_module(_native NB_STATIC NOMINSIZE ${SHOAL_INCLUDE_DIR}/bind/extension.cpp)
  target_include_directories(_native PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} ${generated} ${SHOAL_INCLUDE_DIR})
  target_compile_features(_native PRIVATE cxx_std_20)
  # No fused multiply-add: results do not depend on the compiler's choice.
  target_compile_options(_native PRIVATE -O3 -Wall -Wextra -ffp-contract=off)
endfunction()
