// Messages in protobuf's encoding, as far as batches of rows need it: numbers of up to 32 or 64 bits, and blocks of
// bytes after their lengths. Knows no Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace shoal {

/// A block within a message.
struct Block {
  std::size_t at = 0;
  std::size_t size = 0;
};

constexpr std::uint64_t kNumber = 0;
constexpr std::uint64_t kBlock = 2;
constexpr int kMostVarint = 10;

/// Reads the bytes [at, end) of a message, field after field. Whatever they are, nothing else is read.
class MessageReader {
 public:
  MessageReader(const char* data, Block within) : data_(data), at_(within.at), end_(within.at + within.size) {}

  [[nodiscard]] bool done() const { return at_ == end_; }

  /// Of the next field, its number and kind as one; false where there is none.
  bool tag(std::uint64_t& found) { return varint(found); }

  bool varint(std::uint64_t& found) {
    found = 0;
    for (int i = 0; i < kMostVarint && at_ < end_; ++i) {
      const auto byte = static_cast<std::uint8_t>(data_[at_++]);
      found |= static_cast<std::uint64_t>(byte & 0x7f) << (7 * i);
      if (byte < 0x80) {
        return i < kMostVarint - 1 || byte <= 1;
      }
    }
    return false;
  }

  bool small(std::uint64_t& found) { return varint(found) && found <= std::numeric_limits<std::uint32_t>::max(); }

  bool block(Block& found) {
    std::uint64_t size = 0;
    if (!varint(size) || size > end_ - at_) {
      return false;
    }
    found = {at_, static_cast<std::size_t>(size)};
    at_ += found.size;
    return true;
  }

 private:
  const char* data_;
  std::size_t at_, end_;
};

constexpr std::uint64_t tag_of(int field, std::uint64_t kind) { return static_cast<std::uint64_t>(field) << 3 | kind; }

inline std::size_t varint_size(std::uint64_t value) {
  std::size_t size = 1;
  while ((value >>= 7) != 0) {
    ++size;
  }
  return size;
}

/// Bytes of a field of a number below 16; a zero is left out.
inline std::size_t number_size(std::uint64_t value) { return value == 0 ? 0 : 1 + varint_size(value); }

/// Bytes of a field that holds a block, its own included.
inline std::size_t block_size(std::size_t size) { return 1 + varint_size(size) + size; }

/// Writes fields of numbers below 16; there is as much room as the sizes above say.
class MessageWriter {
 public:
  explicit MessageWriter(char* to) : to_(to) {}

  void number(int field, std::uint64_t value) {
    if (value != 0) {
      varint(tag_of(field, kNumber));
      varint(value);
    }
  }

  /// Begins a block: its bytes are written next.
  void block(int field, std::size_t size) {
    varint(tag_of(field, kBlock));
    varint(size);
  }

  /// The place of the next bytes, which somebody else writes.
  char* take(std::size_t size) {
    char* const from = to_;
    to_ += size;
    return from;
  }

 private:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
      *to_++ = static_cast<char>(value | 0x80);
    }
    *to_++ = static_cast<char>(value);
  }

  char* to_;
};

}  // namespace shoal
