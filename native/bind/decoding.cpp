// shoal._native.decode_attention: attention of a language model's decode step.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bind/arrays.hpp"
#include "net/dispatch.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

constexpr std::size_t head_grain = 16;  ///< the widest vector: heads are whole ones

void decode_attention(const ArrayIn& qkv, const std::optional<ArrayIn>& norm, float eps, const ArrayIn& turns,
                      const ArrayIn& position, const ArrayOut& key, const ArrayOut& value, const ArrayOut& out,
                      const std::string& kernels) {
  const std::size_t rows = axis(out, "out", 3, 0);
  const std::size_t heads = axis(out, "out", 3, 1);
  const std::size_t size = axis(out, "out", 3, 2);
  const std::size_t slots = axis(key, "key", 4, 0);
  const std::size_t kv_heads = axis(key, "key", 4, 1);
  const std::size_t capacity = axis(key, "key", 4, 2);
  if (size == 0 || size % head_grain != 0 || capacity % head_grain != 0) {
    throw std::invalid_argument("sizes of heads and the capacity must be multiples of 16");
  }
  if (kv_heads == 0 || heads == 0 || heads % kv_heads != 0) {
    throw std::invalid_argument("heads of queries must be a multiple of those of keys");
  }
  if (rows > slots) {
    throw std::invalid_argument("there are more rows than slots in the cache");
  }
  if (!(std::isfinite(eps) && eps >= 0.0F)) {
    throw std::invalid_argument("eps must be finite and at least 0");
  }
  const DecodeShape shape{static_cast<std::ptrdiff_t>(rows),     static_cast<std::ptrdiff_t>(heads),
                          static_cast<std::ptrdiff_t>(kv_heads), static_cast<std::ptrdiff_t>(capacity),
                          static_cast<std::ptrdiff_t>(size),     eps};
  DecodeIn in{numbers<float>(qkv, "qkv", {rows, heads + 2 * kv_heads, size}), nullptr,
              numbers<float>(turns, "turns", {capacity, 2, size}), numbers<std::int64_t>(position, "position", {rows})};
  if (norm.has_value()) {
    in.norm = numbers<float>(*norm, "norm", {heads + kv_heads, size});
  }
  for (std::size_t row = 0; row < rows; ++row) {
    if (in.position[row] < 0 || in.position[row] >= shape.capacity) {
      throw std::invalid_argument("position " + std::to_string(in.position[row]) + " of row " + std::to_string(row) +
                                  " lies outside the cache");
    }
  }
  float* keys = numbers<float>(key, "key", {slots, kv_heads, capacity, size});
  float* values = numbers<float>(value, "value", {slots, kv_heads, capacity, size});
  float* seen = numbers<float>(out, "out", {rows, heads, size});
  const Kernels& chosen = find_kernels(kernels);
  const std::size_t group = heads / kv_heads;
  std::vector<float> scratch(group * (size + static_cast<std::size_t>(score_room(shape))));
  const nb::gil_scoped_release released;
  chosen.decode_attention(shape, in, keys, values, scratch.data(), seen);
}

}  // namespace
}  // namespace shoal

void bind_decoding(nb::module_& module) {
  module.def(
      "decode_attention", &shoal::decode_attention, "qkv"_a.noconvert(), "norm"_a.noconvert().none(), "eps"_a,
      "turns"_a.noconvert(), "position"_a.noconvert(), "key"_a.noconvert(), "value"_a.noconvert(), "out"_a.noconvert(),
      "kernels"_a = "",
      "One token of each answer: queries and keys are normalized (with `norm`) and turned, keys and values join the "
      "cache at `position`, and `out` is what each head sees; all float32.\n\n`qkv`: [n, heads + 2 kv_heads, size]; "
      "`norm`: [heads + kv_heads, size]; `turns`: [capacity, 2, size], cosines, and sines of alternating sign, of "
      "pairs "
      "side by side; `position`: int64 [n]; `key`, `value`: [slots, kv_heads, capacity, size], slots in the order of "
      "rows; `out`: [n, heads, size].");
}
