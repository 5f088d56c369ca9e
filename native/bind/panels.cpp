// shoal._native.pack_panels and panel_product: products with weights that are used many times.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <array>
#include <cstddef>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>

#include "bind/arrays.hpp"
#include "net/dispatch.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

constexpr std::size_t width = panel_width;

void check_sizes(std::size_t out, std::size_t in) {
  if (out % width != 0) {
    throw std::invalid_argument("outputs must be a multiple of " + std::to_string(width) + ", not " +
                                std::to_string(out));
  }
  if (in > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw std::invalid_argument("there are too many inputs");
  }
}

void pack_panels(const ArrayIn& weight, const ArrayOut& panels, const std::string& kernels) {
  const std::size_t out = axis(weight, "weight", 2, 0);
  const std::size_t in = axis(weight, "weight", 2, 1);
  check_sizes(out, in);
  const float* from = numbers<float>(weight, "weight", {out, in});
  float* to = numbers<float>(panels, "panels", {out / width, in, width});
  const Kernels& chosen = find_kernels(kernels);
  const nb::gil_scoped_release released;
  chosen.pack_panels(from, static_cast<std::ptrdiff_t>(out), static_cast<std::ptrdiff_t>(in), to);
}

PanelFinish finish_of(const std::string& name) {
  constexpr std::array names{"keep", "swish", "times", "plus"};
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (name == names[i]) return static_cast<PanelFinish>(i);
  }
  throw std::invalid_argument("finish must be keep, swish, times or plus, not '" + name + "'");
}

void panel_product(const ArrayIn& x, const ArrayIn& panels, const std::optional<ArrayIn>& bias,
                   const std::optional<ArrayIn>& other, const std::string& finish, const ArrayOut& out,
                   const std::string& kernels) {
  const std::size_t rows = axis(out, "out", 2, 0);
  const std::size_t size = axis(out, "out", 2, 1);
  const std::size_t in = axis(x, "x", 2, 1);
  check_sizes(size, in);
  if (rows > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw std::invalid_argument("there are too many rows");
  }
  const PanelFinish how = finish_of(finish);
  if ((how == PanelFinish::times || how == PanelFinish::plus) != other.has_value()) {
    throw std::invalid_argument("times and plus need another array, keep and swish none");
  }
  const float* from = numbers<float>(x, "x", {rows, in});
  const float* weights = numbers<float>(panels, "panels", {size / width, in, width});
  const float* added = bias.has_value() ? numbers<float>(*bias, "bias", {size}) : nullptr;
  const float* beside = other.has_value() ? numbers<float>(*other, "other", {rows, size}) : nullptr;
  float* to = numbers<float>(out, "out", {rows, size});
  const Kernels& chosen = find_kernels(kernels);
  const PanelShape shape{static_cast<std::ptrdiff_t>(rows), static_cast<std::ptrdiff_t>(in),
                         static_cast<std::ptrdiff_t>(size)};
  const nb::gil_scoped_release released;
  chosen.panel_product(shape, from, weights, added, beside, how, to);
}

}  // namespace
}  // namespace shoal

void bind_panels(nb::module_& module) {
  module.def("pack_panels", &shoal::pack_panels, "weight"_a.noconvert(), "panels"_a.noconvert(), "kernels"_a = "",
             "Weights [out, in] as panels [out / 32, in, 32], float32, for `panel_product`.");
  module.def("panel_product", &shoal::panel_product, "x"_a.noconvert(), "panels"_a.noconvert(),
             "bias"_a.noconvert().none(), "other"_a.noconvert().none(), "finish"_a, "out"_a.noconvert(),
             "kernels"_a = "",
             "x [n, in] times weights in panels, plus `bias` [out], into `out` [n, out], all float32. `finish`: keep; "
             "swish, through x sigmoid(x); times or plus `other` [n, out]. A row does not depend on the others.");
}
