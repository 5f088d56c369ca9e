// Rows of a step on their way in and out, without a call of NumPy's for each. The only file that speaks NumPy's own C
// interface. shoal._native.gather: what rows returned, from a list of NumPy arrays into one array. copy_within: actions
// that lie within bounds.
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T>
bool all_finite(const void* values, npy_intp count) {
  const auto* value = static_cast<const T*>(values);
  bool good = true;
  for (npy_intp i = 0; i < count; ++i) {
    good &= std::isfinite(value[i]);
  }
  return good;
}

bool is_finite(PyArrayObject* array) {
  switch (PyArray_TYPE(array)) {
    case NPY_FLOAT:
      return all_finite<float>(PyArray_DATA(array), PyArray_SIZE(array));
    case NPY_DOUBLE:
      return all_finite<double>(PyArray_DATA(array), PyArray_SIZE(array));
    default:
      return PyArray_ISINTEGER(array) || PyArray_ISBOOL(array);
  }
}

PyArrayObject* target(nb::handle array, const char* name) {
  auto* found = reinterpret_cast<PyArrayObject*>(array.ptr());
  if (!PyArray_Check(array.ptr()) || PyArray_NDIM(found) < 1 || !PyArray_ISCARRAY(found)) {
    throw nb::type_error((std::string(name) + " must be a contiguous, writable array [rows, ...]").c_str());
  }
  return found;
}

/// Whether `item` is a contiguous array of the shape and type of one row of `out`.
bool is_row_of(PyArrayObject* out, PyObject* item) {
  if (!PyArray_CheckExact(item)) {
    return false;
  }
  auto* row = reinterpret_cast<PyArrayObject*>(item);
  const int axes = PyArray_NDIM(out) - 1;
  return PyArray_TYPE(row) == PyArray_TYPE(out) && PyArray_NDIM(row) == axes &&
         PyArray_CompareLists(PyArray_DIMS(row), PyArray_DIMS(out) + 1, axes) && PyArray_ISCARRAY_RO(row);
}

/// The value of a Python number, or NaN.
double number_of(PyObject* item) {
  if (PyFloat_Check(item)) {
    return PyFloat_AS_DOUBLE(item);
  }
  if (!PyLong_Check(item)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const double value = PyLong_AsDouble(item);
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    return std::numeric_limits<double>::quiet_NaN();
  }
  return value;
}

/// Copies everything, or returns false where Python has to look closer; then a part may have been copied.
bool gather(nb::list seen, nb::list rewards, nb::handle obs, nb::handle reward) {
  PyArrayObject* const all_obs = target(obs, "obs");
  PyArrayObject* const all_rewards = target(reward, "reward");
  const auto rows = static_cast<npy_intp>(seen.size());
  if (PyArray_DIM(all_obs, 0) != rows || PyArray_TYPE(all_rewards) != NPY_DOUBLE || PyArray_SIZE(all_rewards) != rows ||
      static_cast<npy_intp>(rewards.size()) != rows) {
    throw std::invalid_argument("gather needs as many rows of obs, rewards and float64 reward as there are in seen");
  }
  const auto row_bytes = static_cast<std::size_t>(PyArray_NBYTES(all_obs) / (rows > 0 ? rows : 1));
  auto* to = static_cast<char*>(PyArray_DATA(all_obs));
  auto* numbers = static_cast<double*>(PyArray_DATA(all_rewards));
  for (npy_intp row = 0; row < rows; ++row, to += row_bytes) {
    PyObject* const item = PyList_GET_ITEM(seen.ptr(), row);
    numbers[row] = number_of(PyList_GET_ITEM(rewards.ptr(), row));
    if (!std::isfinite(numbers[row]) || !is_row_of(all_obs, item) ||
        !is_finite(reinterpret_cast<PyArrayObject*>(item))) {
      return false;
    }
    std::memcpy(to, PyArray_DATA(reinterpret_cast<PyArrayObject*>(item)), row_bytes);
  }
  return true;
}

/// Whether values [rows, size] lie between low and high [size]; NaN does not.
template <class T>
bool lie_within(PyArrayObject* values, PyArrayObject* low, PyArrayObject* high) {
  const auto* value = static_cast<const T*>(PyArray_DATA(values));
  const auto* least = static_cast<const T*>(PyArray_DATA(low));
  const auto* most = static_cast<const T*>(PyArray_DATA(high));
  const npy_intp size = PyArray_SIZE(low);
  const npy_intp rows = size > 0 ? PyArray_SIZE(values) / size : 0;
  bool good = true;
  for (npy_intp row = 0; row < rows; ++row, value += size) {
    for (npy_intp i = 0; i < size; ++i) {
      good &= value[i] >= least[i] && value[i] <= most[i];
    }
  }
  return good;
}

/// Copies `given` to `out` [rows, ...] where it is an array like it, within low and high [...]; else false.
bool copy_within(nb::handle given, nb::handle out, nb::handle low, nb::handle high) {
  PyArrayObject* const to = target(out, "out");
  auto* const least = reinterpret_cast<PyArrayObject*>(low.ptr());
  auto* const most = reinterpret_cast<PyArrayObject*>(high.ptr());
  if (!is_row_of(to, low.ptr()) || !is_row_of(to, high.ptr())) {
    throw nb::type_error("low and high must be contiguous arrays like one row of out");
  }
  if (!PyArray_CheckExact(given.ptr())) {
    return false;
  }
  auto* const from = reinterpret_cast<PyArrayObject*>(given.ptr());
  if (PyArray_TYPE(from) != PyArray_TYPE(to) || !PyArray_SAMESHAPE(from, to) || !PyArray_ISCARRAY_RO(from)) {
    return false;
  }
  const bool good = PyArray_TYPE(to) == NPY_INT64
                        ? lie_within<npy_int64>(from, least, most)
                        : PyArray_TYPE(to) == NPY_FLOAT32 && lie_within<npy_float32>(from, least, most);
  if (good) {
    std::memcpy(PyArray_DATA(to), PyArray_DATA(from), static_cast<std::size_t>(PyArray_NBYTES(to)));
  }
  return good;
}

}  // namespace

void bind_gather(nb::module_& module) {
  if (_import_array() < 0) {
    throw nb::python_error();
  }
  module.def("gather", &gather, "seen"_a, "rewards"_a, "obs"_a, "reward"_a,
             nb::sig("def gather(seen: list, rewards: list, obs: NDArray, reward: NDArray[numpy.float64]) -> bool"),
             "Copies observation seen[i] to obs[i] [rows, ...] and rewards[i] to reward[i] [rows].\n\n"
             "False, with a part copied, unless every observation is a contiguous array of the shape and dtype of its "
             "place, every reward a Python number, and all of them finite.");
  module.def("copy_within", &copy_within, "given"_a, "out"_a, "low"_a, "high"_a,
             nb::sig("def copy_within(given: object, out: NDArray, low: NDArray, high: NDArray) -> bool"),
             "Copies `given` to `out` [rows, ...] where it is a contiguous array of its shape and dtype (int64 or "
             "float32) whose every row lies between low and high [...]; otherwise writes nothing and returns False.");
}
