// Rows of a step on their way in and out, without a call of NumPy's for each. The only file that speaks NumPy's own C
// interface. Account: what rows that are stepped one by one returned, from lists into arrays. copy_within: actions that
// lie within bounds. Tally: what a step of rows that a library steps at once came to.
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

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

/// The rows of a contiguous array [rows] of this type; nullptr for anything else.
template <class T>
const T* rows_of(nb::handle given, int type, npy_intp rows) {
  auto* const array = reinterpret_cast<PyArrayObject*>(given.ptr());
  const bool fits = PyArray_CheckExact(given.ptr()) && PyArray_TYPE(array) == type && PyArray_NDIM(array) == 1 &&
                    PyArray_DIM(array, 0) == rows && PyArray_ISCARRAY_RO(array);
  return fits ? static_cast<const T*>(PyArray_DATA(array)) : nullptr;
}

/// Copies numbers [rows] of one of the types given; false for anything else.
template <class From, class To>
bool copy_rows(nb::handle given, int type, To* to, npy_intp rows) {
  const From* const from = rows_of<From>(given, type, rows);
  for (npy_intp row = 0; from != nullptr && row < rows; ++row) {
    to[row] = static_cast<To>(from[row]);
  }
  return from != nullptr;
}

/// Returns, lengths and lives of rows that are stepped at once, and each step's outcome in the arrays of an Outputs.
class Tally {
 public:
  Tally(nb::object out, bool clip_reward) : clip_reward_(clip_reward) {
    rows_ = PyArray_SIZE(target(out.attr("reward"), "reward"));
    reward_ = kept<double>(out.attr("reward"), "reward", NPY_DOUBLE);
    terminated_ = kept<npy_bool>(out.attr("terminated"), "terminated", NPY_BOOL);
    truncated_ = kept<npy_bool>(out.attr("truncated"), "truncated", NPY_BOOL);
    valid_ = kept<npy_bool>(out.attr("valid"), "valid", NPY_BOOL);
    episode_return_ = kept<double>(out.attr("episode_return"), "episode_return", NPY_DOUBLE);
    episode_length_ = kept<npy_int64>(out.attr("episode_length"), "episode_length", NPY_INT64);
    returns = zeros(NPY_DOUBLE);
    lengths = zeros(NPY_INT64);
    lives = zeros(NPY_INT64);
    returns_ = kept<double>(returns, "returns", NPY_DOUBLE);
    lengths_ = kept<npy_int64>(lengths, "lengths", NPY_INT64);
    lives_ = kept<npy_int64>(lives, "lives", NPY_INT64);
    now_.resize(static_cast<std::size_t>(rows_));
  }

  int step(nb::handle reward, nb::handle terminated, nb::handle truncated, nb::handle only_reset,
           nb::handle lives_now) {
    const auto* const over = rows_of<npy_bool>(terminated, NPY_BOOL, rows_);
    const auto* const cut = rows_of<npy_bool>(truncated, NPY_BOOL, rows_);
    const auto* const skip = only_reset.is_none() ? nullptr : rows_of<npy_bool>(only_reset, NPY_BOOL, rows_);
    const bool has_lives = !lives_now.is_none();
    if (over == nullptr || cut == nullptr || (skip == nullptr) != only_reset.is_none() || !read_reward(reward, skip) ||
        (has_lives && !copy_rows<npy_int>(lives_now, NPY_INT, now_.data(), rows_) &&
         !copy_rows<npy_int64>(lives_now, NPY_INT64, now_.data(), rows_))) {
      return -1;
    }
    bool any_ended = false;
    bool any_lost = false;
    for (npy_intp row = 0; row < rows_; ++row) {
      valid_[row] = skip == nullptr || skip[row] == 0;
      lengths_[row] += valid_[row];
      returns_[row] += reward_[row];
      if (clip_reward_) {
        reward_[row] = static_cast<double>((reward_[row] > 0) - (reward_[row] < 0));
      }
      const bool ended = over[row] != 0 || cut[row] != 0;
      const bool lost = has_lives && !ended && loses(row);
      terminated_[row] = over[row] != 0 || lost;
      truncated_[row] = cut[row] != 0;
      if (has_lives) {
        lives_[row] = now_[static_cast<std::size_t>(row)];
      }
      if (ended || lost) {
        episode_return_[row] = ended ? returns_[row] : 0;
        episode_length_[row] = ended ? lengths_[row] : 0;
      }
      if (ended) {
        returns_[row] = 0;
        lengths_[row] = 0;
      }
      any_ended |= ended;
      any_lost |= lost;
    }
    return (any_ended ? 1 : 0) + (any_lost ? 2 : 0);
  }

  nb::object returns, lengths, lives;

 private:
  template <class T>
  T* kept(const nb::object& array, const char* name, int type) {
    if (rows_of<T>(array, type, rows_) == nullptr) {
      throw nb::type_error((std::string(name) + " must be a contiguous array [rows] of its type").c_str());
    }
    arrays_.push_back(array);
    return static_cast<T*>(PyArray_DATA(target(array, name)));
  }

  nb::object zeros(int type) const { return nb::steal(PyArray_ZEROS(1, &rows_, type, 0)); }

  /// Rewards in reward_, 0 where a step only reset its row; false unless they are finite numbers of a known type.
  bool read_reward(nb::handle given, const npy_bool* skip) {
    if (!copy_rows<double>(given, NPY_DOUBLE, reward_, rows_) && !copy_rows<float>(given, NPY_FLOAT, reward_, rows_) &&
        !copy_rows<npy_int>(given, NPY_INT, reward_, rows_) &&
        !copy_rows<npy_int64>(given, NPY_INT64, reward_, rows_)) {
      return false;
    }
    for (npy_intp row = 0; skip != nullptr && row < rows_; ++row) {
      reward_[row] = skip[row] != 0 ? 0 : reward_[row];
    }
    return all_finite<double>(reward_, rows_);
  }

  [[nodiscard]] bool loses(npy_intp row) const {
    const npy_int64 now = now_[static_cast<std::size_t>(row)];
    return now > 0 && now < lives_[row];
  }

  bool clip_reward_;
  npy_intp rows_ = 0;
  std::vector<nb::object> arrays_;  ///< whose memory the pointers are of
  std::vector<npy_int64> now_;
  double *reward_, *episode_return_, *returns_;
  npy_bool *terminated_, *truncated_, *valid_;
  npy_int64 *episode_length_, *lengths_, *lives_;
};

/// Steps of rows that Python stepped one by one: what they returned is put into the arrays of an Outputs and added up.
class Account {
 public:
  Account(nb::object out, nb::object returns, nb::object lengths, nb::object limits) {
    obs_array_ = out.attr("obs");
    obs_ = target(obs_array_, "obs");
    rows_ = PyArray_DIM(obs_, 0);
    reward_ = kept<double>(out.attr("reward"), "reward", NPY_DOUBLE);
    terminated_ = kept<npy_bool>(out.attr("terminated"), "terminated", NPY_BOOL);
    truncated_ = kept<npy_bool>(out.attr("truncated"), "truncated", NPY_BOOL);
    returns_ = kept<double>(returns, "returns", NPY_DOUBLE);
    lengths_ = kept<npy_int64>(lengths, "lengths", NPY_INT64);
    limits_ = kept<npy_int64>(limits, "limits", NPY_INT64);
    row_bytes_ = static_cast<std::size_t>(PyArray_NBYTES(obs_) / (rows_ > 0 ? rows_ : 1));
  }

  int step(npy_intp first, nb::list seen, nb::list rewards, double largest_reward) {
    const auto count = static_cast<npy_intp>(seen.size());
    if (first < 0 || count > rows_ || first > rows_ - count || static_cast<npy_intp>(rewards.size()) != count) {
      throw std::invalid_argument("step needs as many rewards as rows in seen, which begin at first and lie in out");
    }
    auto* to = static_cast<char*>(PyArray_DATA(obs_)) + static_cast<std::size_t>(first) * row_bytes_;
    for (npy_intp i = 0; i < count; ++i, to += row_bytes_) {
      PyObject* const item = PyList_GET_ITEM(seen.ptr(), i);
      const double reward = number_of(PyList_GET_ITEM(rewards.ptr(), i));
      if (!(std::fabs(reward) <= largest_reward) || !std::isfinite(reward) || !is_row_of(obs_, item) ||
          !is_finite(reinterpret_cast<PyArrayObject*>(item))) {
        return -1;
      }
      reward_[first + i] = reward;
      std::memcpy(to, PyArray_DATA(reinterpret_cast<PyArrayObject*>(item)), row_bytes_);
    }
    int cut = 0;
    for (npy_intp row = first; row < first + count; ++row) {
      lengths_[row] = static_cast<npy_int64>(static_cast<npy_uint64>(lengths_[row]) + 1);
      returns_[row] += reward_[row];
      terminated_[row] = NPY_FALSE;
      truncated_[row] = lengths_[row] >= limits_[row] ? NPY_TRUE : NPY_FALSE;
      cut |= truncated_[row];
    }
    return cut;
  }

 private:
  template <class T>
  T* kept(const nb::object& array, const char* name, int type) {
    if (rows_of<T>(array, type, rows_) == nullptr) {
      throw nb::type_error((std::string(name) + " must be a contiguous array [rows] of its type").c_str());
    }
    arrays_.push_back(array);
    return static_cast<T*>(PyArray_DATA(target(array, name)));
  }

  nb::object obs_array_;
  PyArrayObject* obs_;
  npy_intp rows_ = 0;
  std::size_t row_bytes_ = 0;
  std::vector<nb::object> arrays_;  ///< whose memory the pointers are of
  double *reward_, *returns_;
  npy_bool *terminated_, *truncated_;
  npy_int64 *lengths_, *limits_;
};

}  // namespace

void bind_gather(nb::module_& module) {
  if (_import_array() < 0) {
    throw nb::python_error();
  }
  module.def("copy_within", &copy_within, "given"_a, "out"_a, "low"_a, "high"_a,
             nb::sig("def copy_within(given: object, out: NDArray, low: NDArray, high: NDArray) -> bool"),
             "Copies `given` to `out` [rows, ...] where it is a contiguous array of its shape and dtype (int64 or "
             "float32) whose every row lies between low and high [...]; otherwise writes nothing and returns False.");
  nb::class_<Tally>(module, "Tally",
                    "Adds up the steps of rows that are stepped at once.\n\n"
                    "`returns`, `lengths` and `lives` [rows] are those of the episodes under way.")
      .def(nb::init<nb::object, bool>(), "out"_a, "clip_reward"_a,
           "`out`: the Outputs whose arrays are written; `clip_reward`: it is given the signs of the rewards.")
      .def_ro("returns", &Tally::returns, nb::for_getter(nb::sig("def returns(self) -> NDArray[numpy.float64]")))
      .def_ro("lengths", &Tally::lengths, nb::for_getter(nb::sig("def lengths(self) -> NDArray[numpy.int64]")))
      .def_ro("lives", &Tally::lives, nb::for_getter(nb::sig("def lives(self) -> NDArray[numpy.int64]")))
      .def("step", &Tally::step, "reward"_a.none(), "terminated"_a.none(), "truncated"_a.none(), "only_reset"_a.none(),
           "lives"_a.none(),
           nb::sig("def step(self, reward: object, terminated: object, truncated: object, "
                   "only_reset: object | None, lives: object | None) -> int"),
           "Takes a step of all rows, each argument an array [rows].\n\n"
           "Returns 1 if episodes ended, plus 2 if lives were lost where none did: both are ends in `out`, the second "
           "with the length 0. Returns -1, with nothing counted, where an array has another form or a reward is not "
           "finite.");
  nb::class_<Account>(
      module, "Account",
      "Adds up the steps of rows that are stepped one by one.\n\n"
      "The arrays [rows, ...] of `out`, an Outputs, are written, `returns` and `lengths` [rows] count on.")
      .def(nb::init<nb::object, nb::object, nb::object, nb::object>(), "out"_a, "returns"_a, "lengths"_a, "limits"_a,
           "`limits` [rows]: steps after which a row's episode is truncated.")
      .def(
          "step", &Account::step, "first"_a, "seen"_a, "rewards"_a, "largest_reward"_a,
          nb::sig("def step(self, first: int, seen: list, rewards: list, largest_reward: float) -> int"),
          "Takes a step of the rows from `first` on: what each saw, and its reward.\n\n"
          "Returns 1 if rows came to their limits, which are truncated, else 0; no row is terminated. Returns -1, with "
          "nothing counted, unless every observation is a contiguous array of the shape and dtype of its place, every "
          "reward a Python number of at most largest_reward either way, and all of them finite.");
}
