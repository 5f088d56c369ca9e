// shoal._native's part of the wire (src/shoal/remote/environments.proto): requests to step rows and replies about rows,
// between their bytes and NumPy arrays, each in one call. Whatever else a message may hold is left to protobuf.
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "remote/messages.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using shoal::Block;
using shoal::kBlock;
using shoal::MessagePart;
using shoal::MessageReader;
using shoal::MessageWriter;
using shoal::padded;
using shoal::put;
using shoal::tag_of;

PyArrayObject* item_of(nb::list arrays, std::size_t i) {
  return reinterpret_cast<PyArrayObject*>(PyList_GET_ITEM(arrays.ptr(), static_cast<Py_ssize_t>(i)));
}

/// Whether the item is a contiguous array of numbers or flags.
bool is_plain(PyArrayObject* array) {
  return PyArray_Check(reinterpret_cast<PyObject*>(array)) && PyArray_ISCARRAY_RO(array) &&
         (PyArray_ISBOOL(array) || PyArray_ISINTEGER(array) || PyArray_ISFLOAT(array));
}

bool is_like(PyArrayObject* array, PyArrayObject* other) {
  return is_plain(array) && is_plain(other) && PyArray_TYPE(array) == PyArray_TYPE(other) &&
         PyArray_SAMESHAPE(array, other);
}

std::size_t bytes_of(PyArrayObject* array) { return static_cast<std::size_t>(PyArray_NBYTES(array)); }

/// Bytes of the arrays as a Layout packs them; ValueError unless all are contiguous arrays, to write to if need be.
std::size_t packed_size(nb::list arrays, bool to_write) {
  std::size_t size = 0;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    PyArrayObject* const array = item_of(arrays, i);
    if (!is_plain(array) || (to_write && !PyArray_ISWRITEABLE(array))) {
      throw std::invalid_argument(
          "arrays must be contiguous arrays of numbers or flags, writable where they are written");
    }
    size += padded(bytes_of(array));
  }
  return size;
}

void put_all(char* to, nb::list arrays) {
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    to = put(to, PyArray_DATA(item_of(arrays, i)), bytes_of(item_of(arrays, i)));
  }
}

/// Copies numbers as they are; of flags whatever is not zero is true.
void take(PyArrayObject* array, char* to, const char* from, std::size_t size) {
  if (!PyArray_ISBOOL(array)) {
    std::memcpy(to, from, size);
    return;
  }
  for (std::size_t i = 0; i < size; ++i) {
    to[i] = static_cast<char>(from[i] != 0);
  }
}

void take_all(nb::list arrays, const char* from) {
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    PyArrayObject* const array = item_of(arrays, i);
    take(array, static_cast<char*>(PyArray_DATA(array)), from, bytes_of(array));
    from += padded(bytes_of(array));
  }
}

/// A block of `data`; ValueError where it does not lie within.
const char* within(nb::bytes data, std::size_t at, std::size_t size) {
  if (at > data.size() || size > data.size() - at) {
    throw std::invalid_argument("there are no bytes " + std::to_string(at) + " to " + std::to_string(at) + " + " +
                                std::to_string(size) + " in a message of " + std::to_string(data.size()));
  }
  return data.c_str() + at;
}

void check_size(std::size_t size, std::size_t expected) {
  if (size != expected) {
    throw std::invalid_argument(std::to_string(size) + " bytes came where " + std::to_string(expected) + " belong");
  }
}

/// Room for a message of so many bytes.
nb::bytes room(std::size_t size, char** to) {
  PyObject* const made = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
  if (made == nullptr) {
    throw nb::python_error();
  }
  *to = PyBytes_AS_STRING(made);
  return nb::steal<nb::bytes>(made);
}

/// Rows whose episode ended, and what else is packed of each.
class Ended {
 public:
  /// Of `finals` [rows, ...], like the first arrays of `like`; ValueError where they are not.
  Ended(nb::list finals, nb::list like, nb::handle terminated, nb::handle truncated) : finals_(finals) {
    const auto* over = flags(terminated);
    const auto* cut = flags(truncated);
    const npy_intp rows = PyArray_DIM(reinterpret_cast<PyArrayObject*>(terminated.ptr()), 0);
    if (PyArray_DIM(reinterpret_cast<PyArrayObject*>(truncated.ptr()), 0) != rows || finals.size() > like.size()) {
      throw std::invalid_argument("there must be as many flags of either kind, and an observation for each final one");
    }
    for (std::size_t i = 0; i < finals.size(); ++i) {
      PyArrayObject* const array = item_of(finals, i);
      if (!is_like(array, item_of(like, i)) || PyArray_NDIM(array) < 1 || PyArray_DIM(array, 0) != rows) {
        throw std::invalid_argument("final observations must be contiguous arrays like the observations");
      }
    }
    for (npy_intp row = 0; row < rows; ++row) {
      if (over[row] != 0 || cut[row] != 0) {
        rows_.push_back(static_cast<std::size_t>(row));
      }
    }
  }

  [[nodiscard]] std::size_t size() const {
    std::size_t size = 0;
    for (std::size_t i = 0; !rows_.empty() && i < finals_.size(); ++i) {
      size += padded(rows_.size() * row_bytes(i));
    }
    return size;
  }

  void put_in(char* to) const {
    for (std::size_t i = 0; !rows_.empty() && i < finals_.size(); ++i) {
      const auto* from = static_cast<const char*>(PyArray_DATA(item_of(finals_, i)));
      char* next = to;
      for (const std::size_t row : rows_) {
        std::memcpy(next, from + row * row_bytes(i), row_bytes(i));
        next += row_bytes(i);
      }
      to += padded(rows_.size() * row_bytes(i));
      std::memset(next, 0, static_cast<std::size_t>(to - next));
    }
  }

  void take_from(const char* from) const {
    for (std::size_t i = 0; !rows_.empty() && i < finals_.size(); ++i) {
      PyArrayObject* const array = item_of(finals_, i);
      if (!PyArray_ISWRITEABLE(array)) {
        throw std::invalid_argument("final observations must be writable");
      }
      auto* const to = static_cast<char*>(PyArray_DATA(array));
      const char* next = from;
      for (const std::size_t row : rows_) {
        take(array, to + row * row_bytes(i), next, row_bytes(i));
        next += row_bytes(i);
      }
      from += padded(rows_.size() * row_bytes(i));
    }
  }

 private:
  static const npy_bool* flags(nb::handle given) {
    auto* const array = reinterpret_cast<PyArrayObject*>(given.ptr());
    if (!PyArray_Check(given.ptr()) || PyArray_TYPE(array) != NPY_BOOL || PyArray_NDIM(array) != 1 ||
        !PyArray_ISCARRAY_RO(array)) {
      throw std::invalid_argument("terminated and truncated must be contiguous arrays [rows] of bool");
    }
    return static_cast<const npy_bool*>(PyArray_DATA(array));
  }

  [[nodiscard]] std::size_t row_bytes(std::size_t i) const {
    PyArrayObject* const array = item_of(finals_, i);
    return bytes_of(array) / static_cast<std::size_t>(PyArray_DIM(array, 0));
  }

  nb::list finals_;
  std::vector<std::size_t> rows_;
};

template <class T>
bool all_finite(PyArrayObject* array) {
  const auto* value = static_cast<const T*>(PyArray_DATA(array));
  const npy_intp count = PyArray_SIZE(array);
  bool good = true;
  for (npy_intp i = 0; i < count; ++i) {
    good &= std::isfinite(value[i]);
  }
  return good;
}

bool is_finite(PyArrayObject* array) {
  switch (PyArray_TYPE(array)) {
    case NPY_FLOAT:
      return all_finite<float>(array);
    case NPY_DOUBLE:
      return all_finite<double>(array);
    default:
      return true;
  }
}

nb::bytes pack_step(std::uint64_t number, std::uint32_t first, std::uint32_t count, nb::list arrays) {
  const std::size_t action = packed_size(arrays, false);
  const shoal::StepSizes sizes(number, first, count, action);
  char* to = nullptr;
  nb::bytes made = room(sizes.message, &to);
  put_all(shoal::begin_step(to, sizes, number, first, count, action), arrays);
  return made;
}

nb::object read_step(nb::bytes data, std::size_t at, std::size_t size) {
  within(data, at, size);
  MessagePart part;
  if (!shoal::read_step_part(data.c_str(), {at, size}, part)) {
    return nb::none();
  }
  return nb::make_tuple(part.number, part.values[1], part.values[2], part.blocks[3].at, part.blocks[3].size);
}

nb::object read_call(nb::bytes data) {
  MessageReader reader(data.c_str(), {0, data.size()});
  std::uint64_t tag = 0;
  Block session, request;
  bool seen[2] = {};
  while (!reader.done()) {
    if (!reader.tag(tag) || (tag != tag_of(1, kBlock) && tag != tag_of(2, kBlock))) {
      return nb::none();
    }
    const bool is_request = tag == tag_of(2, kBlock);
    if (seen[is_request ? 1 : 0] || !reader.block(is_request ? request : session)) {
      return nb::none();
    }
    seen[is_request ? 1 : 0] = true;
  }
  if (!seen[0] || !seen[1]) {
    return nb::none();
  }
  return nb::make_tuple(session.at, session.size, request.at, request.size);
}

void unpack(nb::bytes data, std::size_t at, std::size_t size, nb::list arrays) {
  const char* const from = within(data, at, size);
  check_size(size, packed_size(arrays, true));
  take_all(arrays, from);
}

nb::object pack_rows(std::uint64_t number, std::uint32_t first, bool masked, nb::list arrays, nb::list like,
                     nb::list finals, nb::handle terminated, nb::handle truncated) {
  packed_size(like, false);
  if (arrays.size() != like.size()) {
    throw std::invalid_argument("there must be as many arrays as there are in like");
  }
  bool fits = finals.size() <= like.size();
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    fits = fits && is_like(item_of(arrays, i), item_of(like, i));
  }
  for (std::size_t i = 0; fits && i < finals.size(); ++i) {
    fits = is_like(item_of(finals, i), item_of(like, i));
  }
  if (!fits) {
    return nb::none();
  }
  const Ended ended(finals, like, terminated, truncated);
  const auto count = static_cast<std::uint32_t>(PyArray_DIM(reinterpret_cast<PyArrayObject*>(terminated.ptr()), 0));
  const std::size_t whole = packed_size(arrays, false);
  const std::size_t last = ended.size();
  const shoal::RowsSizes sizes(number, first, count, masked, whole, last);
  char* to = nullptr;
  nb::bytes made = room(sizes.message, &to);
  MessageWriter writer(to);
  shoal::begin_rows(writer, sizes, number, first, count, masked, whole);
  put_all(writer.take(whole), arrays);
  if (last > 0) {
    writer.block(5, last);
    ended.put_in(writer.take(last));
  }
  return made;
}

nb::object read_rows(nb::bytes data) {
  MessagePart part;
  if (!shoal::read_rows_part(data.c_str(), {0, data.size()}, part)) {
    return nb::none();
  }
  return nb::make_tuple(part.number, part.values[1], part.values[2], part.values[3] != 0, part.blocks[4].at,
                        part.blocks[4].size, part.blocks[5].at, part.blocks[5].size);
}

bool unpack_rows(nb::bytes data, std::size_t at, std::size_t size, std::size_t final_at, std::size_t final_size,
                 nb::list arrays, nb::list finals, nb::handle terminated, nb::handle truncated) {
  unpack(data, at, size, arrays);
  const char* const last = within(data, final_at, final_size);
  const Ended ended(finals, arrays, terminated, truncated);
  check_size(final_size, ended.size());
  ended.take_from(last);
  for (std::size_t i = 0; i < arrays.size() && i <= finals.size(); ++i) {
    if (!is_finite(item_of(arrays, i))) {
      return false;
    }
  }
  return true;
}

}  // namespace

void bind_wire(nb::module_& module) {
  if (_import_array() < 0) {
    throw nb::python_error();
  }
  module.def("pack_step", &pack_step, "number"_a, "first"_a, "count"_a, "arrays"_a,
             nb::sig("def pack_step(number: int, first: int, count: int, arrays: list) -> bytes"),
             "The bytes of a Request that steps `count` rows from `first` on with the actions in `arrays`.");
  module.def("read_step", &read_step, "data"_a, "at"_a, "size"_a,
             nb::sig("def read_step(data: bytes, at: int, size: int) -> tuple[int, int, int, int, int] | None"),
             "Of the Request in data[at:at + size]: number, first, count, and where its action begins and how long it "
             "is. None unless it is a plain Step: protobuf reads others.");
  module.def("read_call", &read_call, "data"_a,
             nb::sig("def read_call(data: bytes) -> tuple[int, int, int, int] | None"),
             "Of a SessionRequest: where its session begins and how long it is, and so of its request. None where it "
             "has not both, or more.");
  module.def("unpack", &unpack, "data"_a, "at"_a, "size"_a, "arrays"_a,
             nb::sig("def unpack(data: bytes, at: int, size: int, arrays: list) -> None"),
             "Copies data[at:at + size] to the arrays, as a Layout packs them; ValueError where it has another size.");
  module.def("pack_rows", &pack_rows, "number"_a, "first"_a, "masked"_a, "arrays"_a, "like"_a, "finals"_a,
             "terminated"_a, "truncated"_a,
             nb::sig("def pack_rows(number: int, first: int, masked: bool, arrays: list, like: list, finals: list, "
                     "terminated: NDArray[numpy.bool_], truncated: NDArray[numpy.bool_]) -> bytes | None"),
             "The bytes of a Reply about as many rows as `terminated` and `truncated` [rows] have, from `first` on: "
             "`arrays`, whose first ones are observations, and of `finals` the rows where a flag is set. None unless "
             "each array is contiguous, and of the shape and dtype of its place in `like`.");
  module.def("read_rows", &read_rows, "data"_a,
             nb::sig("def read_rows(data: bytes) -> tuple[int, int, int, bool, int, int, int, int] | None"),
             "Of a Reply: number, first, count, masked, and where its arrays begin and how long they are, and so of "
             "its final observations. None unless it is of plain Rows, nothing cut: protobuf reads others.");
  module.def(
      "unpack_rows", &unpack_rows, "data"_a, "at"_a, "size"_a, "final_at"_a, "final_size"_a, "arrays"_a, "finals"_a,
      "terminated"_a, "truncated"_a,
      nb::sig("def unpack_rows(data: bytes, at: int, size: int, final_at: int, final_size: int, "
              "arrays: list, finals: list, terminated: NDArray[numpy.bool_], truncated: NDArray[numpy.bool_]) -> bool"),
      "Copies what `read_rows` found to the arrays, and to `finals` the last observations of the rows whose "
      "flags, which are among the arrays, are set then. ValueError where sizes differ.\n\n"
      "Returns whether the observations, the first as many arrays as there are `finals`, and the array after "
      "them are finite.");
}
