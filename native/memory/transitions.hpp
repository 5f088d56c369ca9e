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

/// Where transitions are written: arrays [B, ...] without gaps.
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
      : rings_(rings), n_(n), gamma_(gamma), checked_(checked) {}

  /// Begins to fetch what `read` will need.
  void prefetch(std::size_t row, std::size_t slot) const noexcept {
    const auto* first = reinterpret_cast<const std::byte*>(rings_.slot(row, slot));
    const std::size_t bytes = std::min<std::size_t>(2 * rings_.stride() * sizeof(RecordWord), 256);
    for (std::size_t at = 0; at < bytes; at += 64) __builtin_prefetch(first + at);
  }

  /// Whether a step of k >= 1 begins at the place: it is a step, whose successor is there too. `head`: how many records
  /// the row has.
  [[nodiscard]] bool samplable(const Place& place, std::uint64_t head) const noexcept {
    if (place.index + 1 >= head) return false;
    RecordHead step;
    RecordHead next;
    const std::uint64_t after = place.index + 1;
    return look(place.row, place.index % rings_.slots(), place.index, step) &&
           look(place.row, after % rings_.slots(), after, next) && leads(step, next);
  }

  /// Writes transition b, and returns true; false where none begins there or it was overwritten meanwhile. `slot`: the
  /// place's; `head`: how many records the row has.
  bool read(const TransitionArrays& out, std::size_t b, const Place& place, std::size_t slot,
            std::uint64_t head) const noexcept {
    const RecordLayout& layout = rings_.layout();
    const RecordRead first(rings_.slot(place.row, slot), place.index);
    if (checked_ && !first.whole()) return false;
    RecordHead step = first.head();
    if ((step.flags & RecordFlags::final) != 0) return false;
    load(layout.obs, first, out.obs, b);
    load(layout.action, first, out.action, b);
    load_mask(first, out.mask, b);
    if (checked_ && !first.whole()) return false;
    out.version[b] = step.version;

    double sum = 0.0;
    double power = 1.0;
    std::uint64_t k = 0;
    bool over = false;
    while (k < n_ && !over && place.index + k + 1 < head) {
      const std::size_t next_slot = after(slot);
      RecordHead next;
      if (!look(place.row, next_slot, place.index + k + 1, next)) return false;
      if (!leads(step, next)) break;
      slot = next_slot;
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
    return read_next(out, b, RecordRead(rings_.slot(place.row, slot), place.index + k));
  }

 private:
  [[nodiscard]] std::size_t after(std::size_t slot) const noexcept { return slot + 1 == rings_.slots() ? 0 : slot + 1; }

  /// Whether the record after a step is what the step led to.
  static bool leads(const RecordHead& step, const RecordHead& next) noexcept {
    if ((step.flags & RecordFlags::final) != 0) return false;
    const bool ended = (step.flags & RecordFlags::ended) != 0;
    return ended ? (next.flags & RecordFlags::final) != 0 : (next.flags & RecordFlags::broken) == 0;
  }

  /// False where the record is not there.
  bool look(std::size_t row, std::size_t slot, std::uint64_t index, RecordHead& head) const noexcept {
    const RecordRead record(rings_.slot(row, slot), index);
    if (checked_ && !record.whole()) return false;
    head = record.head();
    return !checked_ || record.whole();
  }

  bool read_next(const TransitionArrays& out, std::size_t b, const RecordRead& next) const noexcept {
    load(rings_.layout().obs, next, out.next_obs, b);
    load_mask(next, out.next_mask, b);
    return !checked_ || next.whole();
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
};

}  // namespace shoal
