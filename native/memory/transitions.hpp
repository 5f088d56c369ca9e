// Transitions of n steps, read from the rings into arrays [B, ...].
//
// From step i on, k <= n steps follow each other in the row's ring; the observation after them is that of record i + k:
// the next step's, or the final record's where the episode ended. k < n where the episode ended, or where what follows
// is not there: then k is the number of steps that are.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "memory/rings.hpp"

namespace shoal {

/// A row's record.
struct Place {
  std::size_t row;
  std::uint64_t index;
};

/// A number for a row's record, which no other record ever has.
struct PlaceKeys {
  std::size_t num_rows;

  [[nodiscard]] std::int64_t key(const Place& place) const noexcept {
    return static_cast<std::int64_t>(place.index * num_rows + place.row);
  }
  [[nodiscard]] Place place(std::int64_t key) const noexcept {
    const auto number = static_cast<std::uint64_t>(key);
    return {static_cast<std::size_t>(number % num_rows), number / num_rows};
  }
};

/// A place in a row's ring.
class Walk {
 public:
  Walk(const Rings& rings, std::size_t row, std::size_t slot, std::uint64_t index) noexcept
      : begin_(rings.slot(row, 0)),
        size_(rings.slots() * rings.stride()),
        stride_(rings.stride()),
        at_(slot * stride_),
        index_(index) {}

  [[nodiscard]] std::uint64_t index() const noexcept { return index_; }
  [[nodiscard]] RecordRead record() const noexcept { return {begin_ + at_, index_}; }

  /// The record that is `back` before this one, fewer than the ring has.
  [[nodiscard]] RecordRead before(std::size_t back) const noexcept {
    const std::size_t words = back * stride_;
    return {begin_ + (at_ >= words ? at_ - words : at_ + size_ - words), index_ - back};
  }

  void advance(std::size_t count) noexcept {
    at_ += count * stride_;
    if (at_ >= size_) at_ -= size_;
    index_ += count;
  }

 private:
  RecordWord* begin_;
  std::size_t size_;
  std::size_t stride_;
  std::size_t at_;
  std::uint64_t index_;
};

/// Where transitions are written: arrays [B, ...] without gaps. Observations are whole stacks.
struct TransitionArrays {
  std::vector<std::byte*> obs;
  std::vector<std::byte*> next_obs;
  std::vector<std::byte*> action;
  std::uint8_t* mask;       ///< [B, options] or null
  std::uint8_t* next_mask;  ///< [B, options] or null
  float* reward;
  float* discount;
  std::int32_t* steps;
  std::int32_t* version;
  float* weight;
  float* error;  ///< what a loss may write to: zeros
  std::int64_t* key;
};

/// Reads transitions of at most n steps.
class TransitionReader {
 public:
  /// `checked`: false only in tests, to see the torn records that the sequence numbers keep out.
  TransitionReader(const Rings& rings, std::uint64_t n, double gamma, bool checked)
      : rings_(rings),
        n_(n),
        gamma_(gamma),
        checked_(checked),
        lines_(std::clamp<std::size_t>((n + 1) * rings.stride() * sizeof(RecordWord) / line, 1, most_lines / 4)) {}

  /// Begins to fetch what `read` will need. Always inlined: GCC takes a function that only prefetches for one without
  /// effects, and drops the calls.
  [[gnu::always_inline]] void prefetch(std::size_t row, std::size_t slot) const noexcept {
    const auto* first = reinterpret_cast<const std::byte*>(rings_.slot(row, slot));
    for (std::size_t at = 0; at < lines_ * line; at += line) __builtin_prefetch(first + at);
  }

  /// How many transitions to fetch ahead: as many lines as a core fetches at a time.
  [[nodiscard]] std::size_t num_ahead() const noexcept { return std::max<std::size_t>(most_lines / lines_, 2); }

  /// Whether a step of k >= 1 begins at the place: it is a step, whose successor is there too. `head`: how many records
  /// the row has.
  [[nodiscard]] bool samplable(const Place& place, std::uint64_t head) const noexcept {
    RecordHead step;
    RecordHead next;
    Walk walk(rings_, place.row, place.index % rings_.slots(), place.index);
    return place.index + 1 < head && holds_stack(walk) && look(walk.record(), step) && advance(walk, head, next) &&
           leads(step, next);
  }

  /// Writes transition b, and returns true; false where none begins there or it was overwritten meanwhile. `slot`: the
  /// place's; `head`: how many records the row has.
  bool read(const TransitionArrays& out, std::size_t b, const Place& place, std::size_t slot,
            std::uint64_t head) const noexcept {
    const RecordLayout& layout = rings_.layout();
    Walk walk(rings_, place.row, slot, place.index);
    const RecordRead first = walk.record();
    if (!is_whole(first)) return false;
    RecordHead step = first.head();
    if ((step.flags & RecordFlags::no_step) != 0) return false;
    if (!load_obs(walk, out.obs, b)) return false;
    load(layout.action, first, out.action, b);
    load_mask(first, out.mask, b);
    if (!is_whole(first)) return false;
    out.version[b] = step.version;

    double sum = 0.0;
    double power = 1.0;
    std::uint64_t k = 0;
    bool over = false;
    Walk last = walk;
    while (k < n_ && !over && walk.index() + 1 < head) {
      RecordHead next;
      if (!advance(walk, head, next)) return false;
      if (!leads(step, next)) break;
      last = walk;
      sum += power * static_cast<double>(step.reward);
      power *= gamma_;
      ++k;
      over = (step.flags & RecordFlags::ended) != 0;
      if (!over) step = next;
    }
    if (k == 0) return false;
    const bool terminated = over && (step.flags & RecordFlags::terminated) != 0;
    out.reward[b] = static_cast<float>(sum);
    out.discount[b] = terminated ? 0.0F : static_cast<float>(power);
    out.steps[b] = static_cast<std::int32_t>(k);
    out.key[b] = PlaceKeys{rings_.num_rows()}.key(place);
    return read_next(out, b, last);
  }

  /// Whether the record after a step is what the step led to.
  static bool leads(const RecordHead& step, const RecordHead& next) noexcept {
    if ((step.flags & RecordFlags::no_step) != 0) return false;
    const bool ended = (step.flags & RecordFlags::ended) != 0;
    return ended ? (next.flags & RecordFlags::final) != 0 : (next.flags & RecordFlags::broken) == 0;
  }

  /// Whether the record that is read is there; counted where it is not.
  [[gnu::always_inline]] [[nodiscard]] bool is_whole(const RecordRead& record) const noexcept {
    if (!checked_ || record.whole()) return true;
    ++overwritten_;
    return false;
  }

  /// Of a transition, at most.
  [[nodiscard]] std::uint64_t num_steps() const noexcept { return n_; }
  [[nodiscard]] double gamma() const noexcept { return gamma_; }

  /// How many reads were given up because a writer was faster.
  [[nodiscard]] std::uint64_t overwritten() const noexcept { return overwritten_; }

 private:
  static constexpr std::size_t line = 64;
  static constexpr std::size_t most_lines = 48;

  /// False where the record is not there.
  bool look(const RecordRead& record, RecordHead& head) const noexcept {
    if (!is_whole(record)) return false;
    head = record.head();
    return is_whole(record);
  }

  /// Goes to the next record, past the frames of its stack that have records of their own. False where it is not there.
  bool advance(Walk& walk, std::uint64_t head, RecordHead& next) const noexcept {
    walk.advance(1);
    if (!look(walk.record(), next)) return false;
    if ((next.flags & RecordFlags::lead) == 0) return true;
    walk.advance(rings_.layout().frames - 1);
    return walk.index() < head && look(walk.record(), next);
  }

  /// Whether the frames before a record's own are there.
  [[nodiscard]] bool holds_stack(const Walk& walk) const noexcept {
    const std::size_t frames = rings_.layout().frames;
    return frames == 1 || (walk.index() + 1 >= frames && is_whole(walk.before(frames - 1)));
  }

  bool read_next(const TransitionArrays& out, std::size_t b, const Walk& next) const noexcept {
    if (!load_obs(next, out.next_obs, b)) return false;
    load_mask(next.record(), out.next_mask, b);
    return is_whole(next.record());
  }

  /// The observation of a record: its own frame, and behind it those of the records before. False where one of these is
  /// not there.
  bool load_obs(const Walk& walk, const std::vector<std::byte*>& out, std::size_t b) const noexcept {
    const RecordLayout& layout = rings_.layout();
    if (layout.frames == 1) {
      load(layout.obs, walk.record(), out, b);
      return true;
    }
    if (walk.index() + 1 < layout.frames) return false;
    for (std::size_t frame = 0; frame < layout.frames; ++frame) {
      const RecordRead record = walk.before(layout.frames - 1 - frame);
      load(layout.obs, record, out, b * layout.frames + frame);
      if (!is_whole(record)) return false;
    }
    return true;
  }

  static void load(const std::vector<RecordPart>& parts, const RecordRead& record, const std::vector<std::byte*>& out,
                   std::size_t b) noexcept {
    for (std::size_t i = 0; i < parts.size(); ++i) parts[i].load(record.words(), out[i] + b * parts[i].bytes);
  }

  /// At a final observation nothing is chosen: all options are free.
  void load_mask(const RecordRead& record, std::uint8_t* out, std::size_t b) const noexcept {
    const RecordPart& part = rings_.layout().mask;
    if (out == nullptr) return;
    if ((record.head().flags & RecordFlags::final) != 0) {
      std::fill_n(out + b * part.bytes, part.bytes, std::uint8_t{1});
    } else {
      part.load(record.words(), reinterpret_cast<std::byte*>(out + b * part.bytes));
    }
  }

  const Rings& rings_;
  std::uint64_t n_;
  double gamma_;
  bool checked_;
  mutable std::uint64_t overwritten_ = 0;
  std::size_t lines_;  ///< of a transition, that are fetched ahead
};

}  // namespace shoal
