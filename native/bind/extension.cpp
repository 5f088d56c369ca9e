// The extension module of a package of environments: CMake's shoal_add_environments builds it around their headers.
#include <iterator>

#include <nanobind/nanobind.h>

#include "core/extension.hpp"
#include "environment_headers.inc"

namespace {

#define SHOAL_ENVIRONMENT(type) shoal::entry_of<shoal::type>(),
constexpr shoal::Entry entries[] = {
#include "environments.inc"
};
#undef SHOAL_ENVIRONMENT
constexpr shoal::Extension extension{shoal::core_stamp, entries, std::size(entries)};

}  // namespace

NB_MODULE(_native, module) {
  module.doc() = "Environments for shoal, which finds them by the entry point of the group shoal.environments.";
  module.attr("environments") = nanobind::capsule(&extension, shoal::Extension::capsule);
}
