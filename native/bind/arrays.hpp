// Checks of array arguments: what is wrong is said in a sentence that names the argument.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace shoal {

using ArrayIn = nanobind::ndarray<nanobind::ro, nanobind::device::cpu>;
using ArrayOut = nanobind::ndarray<nanobind::device::cpu>;

template <class T>
constexpr const char* dtype_name() {
  if constexpr (std::is_same_v<T, float>) return "float32";
  if constexpr (std::is_same_v<T, double>) return "float64";
  if constexpr (std::is_same_v<T, std::int64_t>) return "int64";
  if constexpr (std::is_same_v<T, std::uint64_t>) return "uint64";
  if constexpr (std::is_same_v<T, std::int32_t>) return "int32";
  if constexpr (std::is_same_v<T, std::uint16_t>) return "uint16";
  return "uint8 or bool";
}

inline std::string shape_text(const std::size_t* sizes, std::size_t many) {
  std::string text = "(";
  for (std::size_t i = 0; i < many; ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(sizes[i]);
  }
  return text + (many == 1 ? ",)" : ")");
}

template <class Array>
bool is_contiguous(const Array& array) {
  std::int64_t expected = 1;
  for (std::size_t i = array.ndim(); i-- > 0;) {
    if (array.size() != 0 && array.shape(i) != 1 && array.stride(i) != expected) return false;
    expected *= static_cast<std::int64_t>(array.shape(i));
  }
  return true;
}

/// The array's numbers; ValueError unless it is contiguous, of type T and of this shape.
template <class T, class Array>
auto numbers(const Array& array, const char* name, std::initializer_list<std::size_t> shape) {
  using Number = std::conditional_t<std::is_same_v<Array, ArrayIn>, const T, T>;
  constexpr bool is_flag = std::is_same_v<T, std::uint8_t>;
  if (array.dtype() != nanobind::dtype<T>() && !(is_flag && array.dtype() == nanobind::dtype<bool>())) {
    throw std::invalid_argument(std::string(name) + " must be an array of " + dtype_name<T>());
  }
  bool same = array.ndim() == shape.size();
  for (std::size_t i = 0; i < array.ndim(); ++i) {
    same = same && array.shape(i) == shape.begin()[i];
  }
  if (!same) {
    std::size_t sizes[16] = {};
    const std::size_t many = array.ndim() < 16 ? array.ndim() : 16;
    for (std::size_t i = 0; i < many; ++i) {
      sizes[i] = array.shape(i);
    }
    throw std::invalid_argument(std::string(name) + " must have shape " + shape_text(shape.begin(), shape.size()) +
                                ", not " + shape_text(sizes, many));
  }
  if (!is_contiguous(array)) {
    throw std::invalid_argument(std::string(name) + " must be contiguous");
  }
  if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0) {
    throw std::invalid_argument(std::string(name) + " must be aligned to its numbers");
  }
  return static_cast<Number*>(array.data());
}

/// The size of an array's axis; ValueError where it has another number of axes.
template <class Array>
std::size_t axis(const Array& array, const char* name, std::size_t num_axes, std::size_t which) {
  if (array.ndim() != num_axes) {
    throw std::invalid_argument(std::string(name) + " must have " + std::to_string(num_axes) + " axes, not " +
                                std::to_string(array.ndim()));
  }
  return array.shape(which);
}

}  // namespace shoal
