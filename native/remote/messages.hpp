// Requests to step rows and replies about rows, as bytes: what a plain one holds, and where. Knows no Python.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "core/rows.hpp"
#include "remote/protobuf.hpp"

namespace shoal {

/// Arrays begin at multiples of it within their block.
constexpr std::size_t leaf_alignment = 64;

inline std::size_t padded(std::size_t size) { return (size + leaf_alignment - 1) / leaf_alignment * leaf_alignment; }

/// Writes `size` bytes, and zeros up to the next array.
inline char* put(char* to, const void* from, std::size_t size) {
  std::memcpy(to, from, size);
  std::memset(to + size, 0, padded(size) - size);
  return to + padded(size);
}

/// The numbers and the blocks of a message within a message, by their fields.
struct MessagePart {
  std::uint64_t number = 0;      ///< of the message around it
  std::uint64_t values[4] = {};  ///< of fields 1 to 3
  Block blocks[6] = {};          ///< of fields 3 to 5
};

/// Reads field `field`, a message whose fields are `numbers` of numbers and then `blocks` of blocks; false for anything
/// that it has not, or has twice.
inline bool read_part(const char* data, Block whole, int field, int numbers, int blocks, MessagePart& found) {
  MessageReader reader(data, whole);
  std::uint64_t tag = 0;
  Block inner;
  bool has_part = false;
  unsigned seen = 0;
  const auto fresh = [&seen](std::uint64_t bit) {
    const bool is_new = (seen >> bit & 1U) == 0;
    seen |= 1U << bit;
    return is_new;
  };
  while (!reader.done()) {
    if (!reader.tag(tag)) {
      return false;
    }
    if (tag == tag_of(1, kNumber) && fresh(0)) {
      if (!reader.varint(found.number)) {
        return false;
      }
    } else if (tag == tag_of(field, kBlock) && !has_part && reader.block(inner)) {
      has_part = true;
    } else {
      return false;
    }
  }
  MessageReader part(data, inner);
  while (has_part && !part.done()) {
    if (!part.tag(tag)) {
      return false;
    }
    const auto which = static_cast<int>(tag >> 3);
    if (tag >> 3 > static_cast<std::uint64_t>(numbers + blocks) || which < 1 || !fresh(tag >> 3)) {
      return false;
    }
    if (which <= numbers) {
      if (tag != tag_of(which, kNumber) || !part.small(found.values[which])) {
        return false;
      }
    } else if (tag != tag_of(which, kBlock) || !part.block(found.blocks[which])) {
      return false;
    }
  }
  return has_part;
}

inline bool read_step_part(const char* data, Block whole, MessagePart& found) {
  return read_part(data, whole, 4, 2, 1, found);
}

inline bool read_rows_part(const char* data, Block whole, MessagePart& found) {
  return read_part(data, whole, 3, 3, 2, found);
}

/// The sizes of a message about some rows and of what is in it.
struct StepSizes {
  StepSizes(std::uint64_t number, std::uint32_t first, std::uint32_t count, std::size_t action)
      : step(number_size(first) + number_size(count) + block_size(action)),
        message(number_size(number) + block_size(step)) {}
  std::size_t step, message;
};

/// Begins the Request that steps rows; the bytes of their action are written where the result points.
inline char* begin_step(char* to, const StepSizes& sizes, std::uint64_t number, std::uint32_t first,
                        std::uint32_t count, std::size_t action) {
  MessageWriter writer(to);
  writer.number(1, number);
  writer.block(4, sizes.step);
  writer.number(1, first);
  writer.number(2, count);
  writer.block(3, action);
  return writer.take(action);
}

struct RowsSizes {
  RowsSizes(std::uint64_t number, std::uint32_t first, std::uint32_t count, bool masked, std::size_t arrays,
            std::size_t finals)
      : rows(number_size(first) + number_size(count) + number_size(masked ? 1 : 0) + block_size(arrays) +
             (finals > 0 ? block_size(finals) : 0)),
        message(number_size(number) + block_size(rows)) {}
  std::size_t rows, message;
};

/// Begins the Reply about rows, up to the block of their arrays, which are written next; final observations may follow.
inline void begin_rows(MessageWriter& writer, const RowsSizes& sizes, std::uint64_t number, std::uint32_t first,
                       std::uint32_t count, bool masked, std::size_t arrays) {
  writer.number(1, number);
  writer.block(3, sizes.rows);
  writer.number(1, first);
  writer.number(2, count);
  writer.number(3, masked ? 1 : 0);
  writer.block(4, arrays);
}

/// All rows of a server, who observe `obs_size` floats and do what has `action_bytes` bytes a row.
struct PlainRows {
  std::size_t count;
  std::size_t obs_size;
  std::size_t action_bytes;
  std::size_t num_info;  ///< numbers of an episode that ended

  [[nodiscard]] std::size_t row_bytes() const { return obs_size * sizeof(float); }
  [[nodiscard]] std::size_t action_size() const { return padded(count * action_bytes); }
  [[nodiscard]] std::size_t numbers_size() const { return padded(count * sizeof(double)); }
  [[nodiscard]] std::size_t arrays_size() const {
    return padded(count * row_bytes()) + (3 + num_info) * numbers_size() + 3 * padded(count);
  }
  [[nodiscard]] std::size_t finals_size(std::size_t ended) const { return padded(ended * row_bytes()); }
};

/// Where the arrays of plain rows lie in a message, in their order.
struct RowsView {
  RowsView(const PlainRows& rows, const char* arrays, const char* finals) : finals(finals) {
    const auto next = [&arrays](std::size_t size) {
      const char* const here = arrays;
      arrays += size;
      return here;
    };
    obs = next(padded(rows.count * rows.row_bytes()));
    reward = next(rows.numbers_size());
    terminated = next(padded(rows.count));
    truncated = next(padded(rows.count));
    valid = next(padded(rows.count));
    episode_return = next(rows.numbers_size());
    episode_length = next(rows.numbers_size());
    info = next(rows.num_info * rows.numbers_size());
  }

  [[nodiscard]] bool ended(std::size_t row) const { return terminated[row] != 0 || truncated[row] != 0; }

  /// Whether there are `finals_size` bytes for the rows that ended, every row is valid, and what they see and get is
  /// finite.
  [[nodiscard]] bool good(const PlainRows& rows, std::size_t finals_size) const {
    std::size_t over = 0;
    bool fine = true;
    for (std::size_t row = 0; row < rows.count; ++row) {
      over += ended(row) ? 1 : 0;
      fine = fine && valid[row] != 0 && std::isfinite(at<double>(reward, row));
    }
    for (std::size_t i = 0; i < rows.count * rows.obs_size; ++i) {
      fine = fine && std::isfinite(at<float>(obs, i));
    }
    return fine && finals_size == rows.finals_size(over);
  }

  /// Number i of an array, which lies anywhere.
  template <class T>
  static T at(const char* array, std::size_t i) {
    T value;
    std::memcpy(&value, array + i * sizeof(T), sizeof(T));
    return value;
  }

  const char *obs, *reward, *terminated, *truncated, *valid, *episode_return, *episode_length, *info, *finals;
};

/// The Reply to request `number` about all rows, written to `to` after `room` bytes that are left to others.
inline void write_rows(std::vector<char>& to, std::size_t room, std::uint64_t number, const PlainRows& rows,
                       const StepOut& out) {
  const std::size_t count = rows.count;
  std::size_t over = 0;
  for (std::size_t row = 0; row < count; ++row) {
    over += out.terminated[row] != 0 || out.truncated[row] != 0 ? 1 : 0;
  }
  const std::size_t finals = rows.finals_size(over);
  const auto many = static_cast<std::uint32_t>(count);
  const RowsSizes sizes(number, 0, many, false, rows.arrays_size(), finals);
  to.resize(room + sizes.message);
  MessageWriter writer(to.data() + room);
  begin_rows(writer, sizes, number, 0, many, false, rows.arrays_size());
  char* next = put(writer.take(rows.arrays_size()), out.obs, count * rows.row_bytes());
  next = put(next, out.reward, count * sizeof(double));
  next = put(next, out.terminated, count);
  next = put(next, out.truncated, count);
  std::memset(next, 1, count);
  std::memset(next + count, 0, padded(count) - count);
  next = put(next + padded(count), out.episode_return, count * sizeof(double));
  next = put(next, out.episode_length, count * sizeof(std::int64_t));
  for (std::size_t key = 0; key < rows.num_info; ++key) {
    for (std::size_t row = 0; row < count; ++row) {
      std::memcpy(next + row * sizeof(double), out.drawn + row * rows.num_info + key, sizeof(double));
    }
    std::memset(next + count * sizeof(double), 0, rows.numbers_size() - count * sizeof(double));
    next += rows.numbers_size();
  }
  if (finals == 0) {
    return;
  }
  writer.block(5, finals);
  char* last = writer.take(finals);
  char* const end = last + finals;
  for (std::size_t row = 0; row < count; ++row) {
    if (out.terminated[row] != 0 || out.truncated[row] != 0) {
      std::memcpy(last, out.final_obs + row * rows.obs_size, rows.row_bytes());
      last += rows.row_bytes();
    }
  }
  std::memset(last, 0, static_cast<std::size_t>(end - last));
}

}  // namespace shoal
