// The replay memory: one ring of records for each row, in a block that threads and processes may share.
//
// A row has one writer at a time, any number of readers. Before the words of a record are written, the sequence number
// of its slot says so (2 * index + 1), after them that the record is complete (2 * index + 2); index counts the row's
// records from 0 and never starts again. A reader that sees the number of the record that it wants before and after it
// has read the words has read that record.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "memory/record.hpp"

namespace shoal {

/// What a block begins with: what is in it, so that nobody opens another memory's.
struct RingsHeader {
  std::uint64_t magic;
  std::uint64_t format;
  std::uint64_t num_rows;
  std::uint64_t slots;         ///< of each row
  std::uint64_t record_words;  ///< without the sequence number
  std::uint64_t contents;      ///< a hash of what the records mean
  std::uint64_t bytes;         ///< of the whole block
  std::uint64_t zero;

  static constexpr std::uint64_t this_magic = 0x796c7065726c6873;  // "shlreply"
  static constexpr std::uint64_t this_format = 1;
};
static_assert(sizeof(RingsHeader) == 64);

/// What the writer of a row says of it.
struct alignas(64) RowHead {
  RecordWord records;  ///< how many were written: the index of the next
  RecordWord steps;    ///< how many of them are steps
  RecordWord gap;      ///< 1: a step was left out since the last record
};

/// A view of a block; copies are of the view.
class Rings {
 public:
  static constexpr std::size_t most_rows = std::size_t{1} << 24;
  static constexpr std::size_t most_slots = std::size_t{1} << 36;

  /// Bytes of a block; std::invalid_argument where there would be too many.
  [[nodiscard]] static std::size_t bytes(std::size_t num_rows, std::size_t slots, const RecordLayout& layout) {
    if (num_rows < 1 || num_rows > most_rows || slots < 2 || slots > most_slots) {
      throw std::invalid_argument("a replay memory has 1 to 2^24 rows of 2 to 2^36 slots, not " +
                                  std::to_string(num_rows) + " of " + std::to_string(slots));
    }
    const __uint128_t all = sizeof(RingsHeader) + static_cast<__uint128_t>(num_rows) * sizeof(RowHead) +
                            static_cast<__uint128_t>(num_rows) * slots * (layout.num_words + 1) * sizeof(RecordWord);
    if (all >> 62 != 0) {
      throw std::invalid_argument(std::to_string(num_rows) + " rows of " + std::to_string(slots) +
                                  " slots are more than any memory holds");
    }
    return static_cast<std::size_t>(all);
  }

  /// `memory` must outlive this. A block of zeros becomes an empty memory; any other one must be such a memory.
  Rings(std::byte* memory, std::size_t size, std::size_t num_rows, std::size_t slots, RecordLayout layout,
        std::uint64_t contents)
      : layout_(std::move(layout)), num_rows_(num_rows), slots_(slots), stride_(layout_.num_words + 1) {
    const std::size_t needed = bytes(num_rows, slots, layout_);
    if (size != needed || reinterpret_cast<std::uintptr_t>(memory) % alignof(RowHead) != 0) {
      throw std::invalid_argument("this replay memory needs a block of " + std::to_string(needed) +
                                  " bytes that starts at a multiple of 64, not " + std::to_string(size));
    }
    if (layout_.frames > slots) {
      throw std::invalid_argument("stacks of " + std::to_string(layout_.frames) + " frames do not fit into rows of " +
                                  std::to_string(slots) + " slots");
    }
    const RingsHeader wanted{
        RingsHeader::this_magic, RingsHeader::this_format, num_rows, slots, layout_.num_words, contents, needed, 0};
    RingsHeader found{};
    std::memcpy(&found, memory, sizeof found);
    const RingsHeader empty{};
    if (std::memcmp(&found, &empty, sizeof found) == 0) {
      std::memcpy(memory, &wanted, sizeof wanted);
    } else if (std::memcmp(&found, &wanted, sizeof found) != 0) {
      throw std::invalid_argument(difference(found, wanted));
    }
    heads_ = reinterpret_cast<RowHead*>(memory + sizeof(RingsHeader));
    words_ = reinterpret_cast<RecordWord*>(heads_ + num_rows);
  }

  [[nodiscard]] const RecordLayout& layout() const noexcept { return layout_; }
  [[nodiscard]] std::size_t num_rows() const noexcept { return num_rows_; }
  [[nodiscard]] std::size_t slots() const noexcept { return slots_; }
  [[nodiscard]] RowHead& head(std::size_t row) const noexcept { return heads_[row]; }
  [[nodiscard]] std::uint64_t num_records(std::size_t row) const noexcept {
    return heads_[row].records.load(std::memory_order_acquire);
  }
  /// Words between the sequence numbers of two slots.
  [[nodiscard]] std::size_t stride() const noexcept { return stride_; }

  /// The sequence number of a slot; the words of its record follow.
  [[nodiscard]] RecordWord* slot(std::size_t row, std::size_t at) const noexcept {
    return words_ + (row * slots_ + at) * stride_;
  }

  [[nodiscard]] static constexpr std::uint64_t unfinished(std::uint64_t index) noexcept { return 2 * index + 1; }
  [[nodiscard]] static constexpr std::uint64_t complete(std::uint64_t index) noexcept { return 2 * index + 2; }

 private:
  static std::string difference(const RingsHeader& found, const RingsHeader& wanted) {
    if (found.magic != wanted.magic) return "this is no replay memory of shoal's, or its first bytes are damaged";
    if (found.format != wanted.format) {
      return "this replay memory has the format " + std::to_string(found.format) + "; this shoal reads " +
             std::to_string(wanted.format);
    }
    if (found.contents != wanted.contents || found.record_words != wanted.record_words) {
      return "this replay memory is of other observations or actions";
    }
    return "this replay memory has " + std::to_string(found.num_rows) + " rows of " + std::to_string(found.slots) +
           " slots, not " + std::to_string(wanted.num_rows) + " of " + std::to_string(wanted.slots) +
           ", or its first bytes are damaged";
  }

  RecordLayout layout_;
  std::size_t num_rows_;
  std::size_t slots_;
  std::size_t stride_;
  RowHead* heads_ = nullptr;
  RecordWord* words_ = nullptr;
};

/// A record that is being read: `begin`, any loads, and whether `whole` says that they are of that record.
class RecordRead {
 public:
  RecordRead(RecordWord* slot, std::uint64_t index) noexcept : slot_(slot), wanted_(Rings::complete(index)) {}

  [[nodiscard]] bool whole() const noexcept { return slot_->load(std::memory_order_acquire) == wanted_; }
  [[nodiscard]] RecordWord* words() const noexcept { return slot_ + 1; }
  [[nodiscard]] RecordHead head() const noexcept {
    return RecordHead::of(words()[0].load(std::memory_order_acquire), words()[1].load(std::memory_order_acquire));
  }

 private:
  RecordWord* slot_;
  std::uint64_t wanted_;
};

}  // namespace shoal
