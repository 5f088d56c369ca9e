// What arrays that Python hands over must be: contiguous, of a shape and of a type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <nanobind/ndarray.h>

namespace shoal {

namespace nb = nanobind;

template <class Array>
bool is_contiguous(const Array& array) {
  std::int64_t expected = 1;
  for (std::size_t i = array.ndim(); i-- > 0;) {
    if (array.size() != 0 && array.shape(i) != 1 && array.stride(i) != expected) {
      return false;
    }
    expected *= static_cast<std::int64_t>(array.shape(i));
  }
  return true;
}

inline std::string shape_text(const std::vector<std::size_t>& shape) {
  std::string text = "(";
  for (const std::size_t size : shape) {
    text += std::to_string(size) + ",";
  }
  return text + ")";
}

/// ValueError unless the array is contiguous, of this shape and of type T.
template <class T, class Array>
void require_array(const Array& array, const char* name, const char* dtype, const std::vector<std::size_t>& shape) {
  std::vector<std::size_t> given;
  for (std::size_t i = 0; i < array.ndim(); ++i) {
    given.push_back(array.shape(i));
  }
  const bool flag = std::is_same_v<T, std::uint8_t> && array.dtype() == nb::dtype<bool>();
  if (array.dtype() != nb::dtype<T>() && !flag) {
    throw std::invalid_argument(std::string(name) + " must be a " + dtype + " array");
  }
  if (given != shape) {
    throw std::invalid_argument(std::string(name) + " must have shape " + shape_text(shape) + ", not " +
                                shape_text(given));
  }
  if (!is_contiguous(array)) {
    throw std::invalid_argument(std::string(name) + " must be contiguous");
  }
  if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0) {
    throw std::invalid_argument(std::string(name) + " must be aligned to its numbers");
  }
}

}  // namespace shoal
