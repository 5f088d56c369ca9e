// shoal._native's picture of memory: a forked child that writes arrays to files.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "bind/arrays.hpp"
#include "sync/fork_writer.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

using Written = std::vector<std::pair<nb::bytes, std::vector<ArrayIn>>>;

int fork_writer_of(const Written& files) {
  std::vector<FileImage> images;
  images.reserve(files.size());
  for (const auto& [path, arrays] : files) {
    FileImage image{std::string(path.c_str(), path.size()), {}};
    image.buffers.reserve(arrays.size());
    for (const ArrayIn& array : arrays) {
      const auto* bytes = numbers<std::uint8_t>(array, "a buffer", {axis(array, "a buffer", 1, 0)});
      image.buffers.emplace_back(reinterpret_cast<const std::byte*>(bytes), array.size());
    }
    images.push_back(std::move(image));
  }
  try {
    const nb::gil_scoped_release released;
    return fork_writer(images);
  } catch (const std::system_error& error) {
    errno = error.code().value();
    PyErr_SetFromErrno(PyExc_OSError);
    throw nb::python_error();
  }
}

}  // namespace
}  // namespace shoal

void bind_fork(nb::module_& module) {
  module.def(
      "fork_writer", &shoal::fork_writer_of, "files"_a.noconvert(),
      "Fork a child that writes arrays of bytes to new files, for each (path, [arrays]), as they are now; its process "
      "id. It exits with 0 or with the errno of what failed. OSError where fork fails.");
}
