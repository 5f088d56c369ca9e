// A block of steps [T, B], as a slab holds it, appended to the rings of B rows.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "memory/rings.hpp"

namespace shoal {

/// Arrays [T, B, ...] without gaps; the leaves of trees one after the other. Observations are whole stacks.
struct StepBlock {
  std::size_t num_steps;
  std::size_t num_rows;
  std::vector<const std::byte*> obs;
  std::vector<const std::byte*> action;
  const float* reward;
  const std::uint8_t* terminated;
  const std::uint8_t* truncated;
  const std::uint8_t* valid;
  const std::uint8_t* start;
  const std::int32_t* version;
  const std::int32_t* final_index;          ///< into final_obs where an episode ended
  std::vector<const std::byte*> final_obs;  ///< [num_final, ...]
  std::size_t num_final;
  const std::uint8_t* mask;  ///< [T, B, options] or null
  bool in_turns;             ///< a step that is not valid is somebody else's, not a row that was only reset
};

/// Where the next record of a row goes. Readers see records when they are published, those of a stack together.
class RowEnd {
 public:
  RowEnd(const Rings& rings, std::size_t row)
      : head_(rings.head(row)),
        stride_(rings.stride()),
        begin_(rings.slot(row, 0)),
        end_(begin_ + rings.slots() * stride_),
        index_(head_.records.load(std::memory_order_relaxed)),
        slot_(rings.slot(row, index_ % rings.slots())) {}

  [[nodiscard]] std::uint64_t index() const noexcept { return index_; }

  /// Says that the record in its slot is no longer there; returns the new one's words.
  RecordWord* begin() const noexcept {
    slot_->store(Rings::unfinished(index_), std::memory_order_relaxed);
    return slot_ + 1;
  }

  void finish() noexcept {
    slot_->store(Rings::complete(index_), std::memory_order_release);
    slot_ += stride_;
    if (slot_ == end_) slot_ = begin_;
    ++index_;
  }

  void publish() const noexcept { head_.records.store(index_, std::memory_order_release); }

  /// The words of the record that is `back` before the next one.
  [[nodiscard]] const RecordWord* before(std::size_t back) const noexcept {
    const auto words = static_cast<std::ptrdiff_t>(back * stride_);
    return (slot_ - begin_ >= words ? slot_ : slot_ + (end_ - begin_)) - words + 1;
  }

 private:
  RowHead& head_;
  std::size_t stride_;
  RecordWord* begin_;
  RecordWord* end_;
  std::uint64_t index_;
  RecordWord* slot_;
};

/// Appends the steps of rows that are valid. One call at a time may write to a row.
class Insertion {
 public:
  Insertion(const Rings& rings, const StepBlock& block, std::size_t first_row)
      : rings_(rings), block_(block), first_row_(first_row) {}

  /// How many steps were stored; std::invalid_argument, with nothing stored, where one cannot be.
  std::size_t run() const {
    check();
    std::size_t stored = 0;
    for (std::size_t b = 0; b < block_.num_rows; ++b) stored += append_row(b);
    return stored;
  }

 private:
  void check() const {
    const std::size_t all = block_.num_steps * block_.num_rows;
    bool good = true;
    for (std::size_t at = 0; at < all; ++at) good &= is_good(at);
    if (good) return;
    for (std::size_t at = 0; at < all; ++at) {
      if (is_good(at)) continue;
      const std::string place = "step " + std::to_string(at / block_.num_rows) + " of row " +
                                std::to_string(first_row_ + at % block_.num_rows);
      if (!std::isfinite(block_.reward[at])) throw std::invalid_argument("the reward of " + place + " is not finite");
      throw std::invalid_argument(place + " ended its episode, but final_index names no final observation there");
    }
  }

  [[nodiscard]] bool is_good(std::size_t at) const noexcept {
    const bool ended = (block_.terminated[at] | block_.truncated[at]) != 0;
    const bool has_final =
        static_cast<std::size_t>(static_cast<std::uint32_t>(block_.final_index[at])) < block_.num_final;
    return block_.valid[at] == 0 || (std::isfinite(block_.reward[at]) && (!ended || has_final));
  }

  std::size_t append_row(std::size_t b) const {
    RowHead& head = rings_.head(first_row_ + b);
    RowEnd end(rings_, first_row_ + b);
    bool gap = head.gap.load(std::memory_order_relaxed) != 0;
    std::size_t steps = 0;
    for (std::size_t t = 0; t < block_.num_steps; ++t) {
      const std::size_t at = t * block_.num_rows + b;
      if (block_.valid[at] == 0) {
        gap = gap || !block_.in_turns;
        continue;
      }
      const std::uint32_t flags = flags_of(at) | (gap ? RecordFlags::gap : 0);
      gap = false;
      write_leads(end, block_.obs, at);
      write_step(end, at, flags);
      end.publish();
      ++steps;
      if ((flags & RecordFlags::ended) != 0) {
        write_leads(end, block_.final_obs, static_cast<std::size_t>(block_.final_index[at]));
        write_final(end, at);
        end.publish();
      }
    }
    head.gap.store(gap ? 1 : 0, std::memory_order_relaxed);
    head.steps.store(head.steps.load(std::memory_order_relaxed) + steps, std::memory_order_relaxed);
    return steps;
  }

  [[nodiscard]] std::uint32_t flags_of(std::size_t at) const noexcept {
    return (block_.terminated[at] != 0 ? RecordFlags::terminated : 0) |
           (block_.truncated[at] != 0 ? RecordFlags::truncated : 0) | (block_.start[at] != 0 ? RecordFlags::start : 0);
  }

  /// The frames before the newest of stack `at`, in records of their own, unless the records before it hold them.
  void write_leads(RowEnd& end, const std::vector<const std::byte*>& stacks, std::size_t at) const noexcept {
    const std::size_t frames = rings_.layout().frames;
    if (frames == 1 || continues(end, stacks, at)) return;
    for (std::size_t frame = 0; frame + 1 < frames; ++frame) {
      RecordWord* const words = end.begin();
      write_head(words, {0.0F, 0, RecordFlags::lead});
      write_frame(words, stacks, at, frame);
      end.finish();
    }
  }

  [[nodiscard]] bool continues(const RowEnd& end, const std::vector<const std::byte*>& stacks,
                               std::size_t at) const noexcept {
    const RecordLayout& layout = rings_.layout();
    if (end.index() + 1 < layout.frames) return false;
    for (std::size_t back = 1; back < layout.frames; ++back) {
      const RecordWord* const words = end.before(back);
      for (std::size_t i = 0; i < layout.obs.size(); ++i) {
        const RecordPart& part = layout.obs[i];
        const std::size_t frame = at * layout.frames + layout.frames - 1 - back;
        if (!part.holds(words, stacks[i] + frame * part.bytes)) return false;
      }
    }
    return true;
  }

  void write_frame(RecordWord* words, const std::vector<const std::byte*>& stacks, std::size_t at,
                   std::size_t frame) const noexcept {
    const RecordLayout& layout = rings_.layout();
    for (std::size_t i = 0; i < layout.obs.size(); ++i) {
      const RecordPart& part = layout.obs[i];
      part.store(words, stacks[i] + (at * layout.frames + frame) * part.bytes);
    }
  }

  void write_step(RowEnd& end, std::size_t at, std::uint32_t flags) const noexcept {
    const RecordLayout& layout = rings_.layout();
    RecordWord* const words = end.begin();
    write_head(words, {block_.reward[at], block_.version[at], flags});
    write_frame(words, block_.obs, at, layout.frames - 1);
    for (std::size_t i = 0; i < layout.action.size(); ++i) {
      layout.action[i].store(words, block_.action[i] + at * layout.action[i].bytes);
    }
    if (block_.mask != nullptr) {
      const auto* mask = reinterpret_cast<const std::byte*>(block_.mask);
      layout.mask.store(words, mask + at * layout.mask.bytes);
    }
    end.finish();
  }

  void write_final(RowEnd& end, std::size_t at) const noexcept {
    RecordWord* const words = end.begin();
    write_head(words, {0.0F, block_.version[at], RecordFlags::final});
    write_frame(words, block_.final_obs, static_cast<std::size_t>(block_.final_index[at]), rings_.layout().frames - 1);
    end.finish();
  }

  static void write_head(RecordWord* words, const RecordHead& head) noexcept {
    words[0].store(head.first_word(), std::memory_order_release);
    words[1].store(head.flags, std::memory_order_release);
  }

  const Rings& rings_;
  const StepBlock& block_;
  std::size_t first_row_;
};

}  // namespace shoal
