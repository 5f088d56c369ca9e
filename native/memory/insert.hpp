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

/// Arrays [T, B, ...] without gaps; the leaves of trees one after the other.
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
    std::uint64_t index = head.records.load(std::memory_order_relaxed);
    std::size_t slot = index % rings_.slots();
    bool gap = head.gap.load(std::memory_order_relaxed) != 0;
    std::size_t steps = 0;
    const auto next = [&] {
      slot = slot + 1 == rings_.slots() ? 0 : slot + 1;
      head.records.store(++index, std::memory_order_release);
    };
    for (std::size_t t = 0; t < block_.num_steps; ++t) {
      const std::size_t at = t * block_.num_rows + b;
      if (block_.valid[at] == 0) {
        gap = gap || !block_.in_turns;
        continue;
      }
      const std::uint32_t flags = flags_of(at) | (gap ? RecordFlags::gap : 0);
      gap = false;
      write_step(rings_.slot(first_row_ + b, slot), index, at, flags);
      next();
      ++steps;
      if ((flags & RecordFlags::ended) != 0) {
        write_final(rings_.slot(first_row_ + b, slot), index, at);
        next();
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

  void write_step(RecordWord* slot, std::uint64_t index, std::size_t at, std::uint32_t flags) const noexcept {
    const RecordLayout& layout = rings_.layout();
    slot->store(Rings::unfinished(index), std::memory_order_relaxed);
    write_head(slot + 1, {block_.reward[at], block_.version[at], flags});
    for (std::size_t i = 0; i < layout.obs.size(); ++i) {
      layout.obs[i].store(slot + 1, block_.obs[i] + at * layout.obs[i].bytes);
    }
    for (std::size_t i = 0; i < layout.action.size(); ++i) {
      layout.action[i].store(slot + 1, block_.action[i] + at * layout.action[i].bytes);
    }
    if (block_.mask != nullptr) {
      const auto* mask = reinterpret_cast<const std::byte*>(block_.mask);
      layout.mask.store(slot + 1, mask + at * layout.mask.bytes);
    }
    slot->store(Rings::complete(index), std::memory_order_release);
  }

  void write_final(RecordWord* slot, std::uint64_t index, std::size_t at) const noexcept {
    const RecordLayout& layout = rings_.layout();
    const auto from = static_cast<std::size_t>(block_.final_index[at]);
    slot->store(Rings::unfinished(index), std::memory_order_relaxed);
    write_head(slot + 1, {0.0F, block_.version[at], RecordFlags::final});
    for (std::size_t i = 0; i < layout.obs.size(); ++i) {
      layout.obs[i].store(slot + 1, block_.final_obs[i] + from * layout.obs[i].bytes);
    }
    slot->store(Rings::complete(index), std::memory_order_release);
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
