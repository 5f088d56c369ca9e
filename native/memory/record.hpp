// A record of the replay memory: a step of one row, or the final observation of an episode, in whole words of 8 bytes.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace shoal {

/// Memory that processes share is read and written in these: each alone is never torn.
using RecordWord = std::atomic<std::uint64_t>;
static_assert(RecordWord::is_always_lock_free && sizeof(RecordWord) == 8);

/// What a record is. A final record holds only an observation: that after the step before it, which ended its episode.
/// A lead record holds only a frame of the stacks of the records after it.
struct RecordFlags {
  static constexpr std::uint32_t terminated = 1;
  static constexpr std::uint32_t truncated = 2;
  static constexpr std::uint32_t final = 4;
  static constexpr std::uint32_t start = 8;  ///< the first of its episode
  static constexpr std::uint32_t gap = 16;   ///< the record before it did not lead to it
  static constexpr std::uint32_t lead = 32;
  static constexpr std::uint32_t no_step = final | lead;
  static constexpr std::uint32_t ended = terminated | truncated;
  static constexpr std::uint32_t broken = start | gap;
};

/// The numbers that every record has.
struct RecordHead {
  float reward = 0.0F;
  std::int32_t version = 0;
  std::uint32_t flags = 0;

  static constexpr std::size_t num_words = 2;

  [[nodiscard]] std::uint64_t first_word() const noexcept {
    const auto high = static_cast<std::uint64_t>(std::bit_cast<std::uint32_t>(version));
    return high << 32 | std::bit_cast<std::uint32_t>(reward);
  }

  static RecordHead of(std::uint64_t first, std::uint64_t second) noexcept {
    return {std::bit_cast<float>(static_cast<std::uint32_t>(first)),
            std::bit_cast<std::int32_t>(static_cast<std::uint32_t>(first >> 32)), static_cast<std::uint32_t>(second)};
  }
};

/// Where an array of the record lies: `bytes` of it, from word `first` on; the last word's other bytes are 0.
struct RecordPart {
  std::size_t first;
  std::size_t bytes;

  [[nodiscard]] std::size_t num_words() const noexcept { return (bytes + 7) / 8; }

  /// Writes the part of a record. Each store is a release, so that whoever sees it sees that the record is unfinished.
  void store(RecordWord* record, const std::byte* from) const noexcept {
    RecordWord* to = record + first;
    const std::size_t whole = bytes / 8;
    for (std::size_t i = 0; i < whole; ++i) {
      std::uint64_t word = 0;
      std::memcpy(&word, from + 8 * i, 8);
      to[i].store(word, std::memory_order_release);
    }
    if (bytes % 8 != 0) {
      std::uint64_t word = 0;
      std::memcpy(&word, from + 8 * whole, bytes % 8);
      to[whole].store(word, std::memory_order_release);
    }
  }

  /// Whether the record, which nobody writes now, holds these bytes.
  [[nodiscard]] bool holds(const RecordWord* record, const std::byte* other) const noexcept {
    const RecordWord* from = record + first;
    const std::size_t whole = bytes / 8;
    for (std::size_t i = 0; i < whole; ++i) {
      std::uint64_t word = 0;
      std::memcpy(&word, other + 8 * i, 8);
      if (from[i].load(std::memory_order_relaxed) != word) return false;
    }
    if (bytes % 8 == 0) return true;
    const std::uint64_t word = from[whole].load(std::memory_order_relaxed);
    return std::memcmp(&word, other + 8 * whole, bytes % 8) == 0;
  }

  /// Reads the part of a record. Each load is an acquire, so that the sequence number is read after it.
  [[gnu::always_inline]] void load(const RecordWord* record, std::byte* to) const noexcept {
    const RecordWord* from = record + first;
    const std::size_t rest = bytes % 8;
    const RecordWord* const end = from + bytes / 8;
    const auto move = [&from, &to] {
      const std::uint64_t word = (from++)->load(std::memory_order_acquire);
      std::memcpy(to, &word, 8);
      to += 8;
    };
    while (end - from >= 4) {
      move();
      move();
      move();
      move();
    }
    while (from != end) move();
    if (rest != 0) {
      const std::uint64_t word = from->load(std::memory_order_acquire);
      std::memcpy(to, &word, rest);
    }
  }
};

/// The parts of a record, one after the other behind its head.
///
/// Observations that are stacks of `frames` are kept a frame a record: the newest. The others are those of the records
/// before it.
struct RecordLayout {
  std::vector<RecordPart> obs;  ///< of one frame
  std::vector<RecordPart> action;
  RecordPart mask{};  ///< of no bytes where actions are not masked
  std::size_t frames;
  std::size_t num_words = RecordHead::num_words;

  static constexpr std::size_t most_bytes = std::size_t{1} << 36;
  static constexpr std::size_t most_frames = 1024;

  RecordLayout(std::span<const std::size_t> obs_bytes, std::span<const std::size_t> action_bytes,
               std::size_t mask_bytes, std::size_t num_frames = 1)
      : frames(num_frames) {
    if (frames < 1 || frames > most_frames) {
      throw std::invalid_argument("observations are stacks of 1 to " + std::to_string(most_frames) + " frames, not " +
                                  std::to_string(frames));
    }
    for (const std::size_t bytes : obs_bytes) obs.push_back(add(bytes));
    for (const std::size_t bytes : action_bytes) action.push_back(add(bytes));
    mask = add(mask_bytes);
  }

 private:
  RecordPart add(std::size_t bytes) {
    if (bytes > most_bytes) {
      throw std::invalid_argument("a leaf of a record may have at most 2^36 bytes, not " + std::to_string(bytes));
    }
    const RecordPart part{num_words, bytes};
    num_words += part.num_words();
    return part;
  }
};

}  // namespace shoal
