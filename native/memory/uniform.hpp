// Draws places of a replay memory: each record that the rings hold is as likely as any other, or as `Mixing` says.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "math/pcg64.hpp"
#include "memory/mixing.hpp"
#include "memory/pairs.hpp"
#include "memory/transitions.hpp"

namespace shoal {

/// The records of each row at one moment.
class Held {
 public:
  struct Row {
    std::uint64_t head;   ///< how many records were written
    std::uint64_t first;  ///< the oldest that is there
    std::uint64_t count;  ///< of those that have a successor
    std::size_t slot;     ///< of the oldest
  };

  Held(const Rings& rings, const Mixing& mixing)
      : rings_(rings), mixing_(mixing), rows_(rings.num_rows()), ends_(rings.num_rows()) {}

  /// Looks at what the rings hold now.
  void look() noexcept {
    look_at([this](std::size_t row) { return rings_.num_records(row); });
  }

  /// The same as it was when the rows had so many records.
  void look(const std::vector<std::uint64_t>& heads) noexcept {
    look_at([&heads](std::size_t row) { return heads[row]; });
  }

  [[nodiscard]] const Row& row(std::size_t i) const noexcept { return rows_[i]; }
  [[nodiscard]] std::size_t num_rows() const noexcept { return rows_.size(); }
  /// Records that have a successor, of rows that are drawn from.
  [[nodiscard]] std::uint64_t total() const noexcept { return total_; }
  /// Whether a row's records are drawn.
  [[nodiscard]] bool draws_from(std::size_t row) const noexcept {
    if (!mixing_.mixed()) return true;
    const auto own = std::ranges::find_if(mixing_.blocks, [row](const RowBlock& block) { return row < block.end; });
    return own->share > 0.0;
  }

  /// Of a record that the row held when it was looked at.
  [[nodiscard]] std::size_t slot(const Place& place) const noexcept {
    const Row& row = rows_[place.row];
    const std::size_t slot = row.slot + static_cast<std::size_t>(place.index - row.first);
    return slot < rings_.slots() ? slot : slot - rings_.slots();
  }

  /// One of `total` > 0 records. A draw's upper part chooses the row, what is left of it the record.
  Place draw(Pcg64& random) const noexcept {
    if (mixing_.mixed()) {
      const std::size_t block = shares_.find(shares_.total() * random.next_double());
      const std::uint64_t before = first_of(mixing_.blocks[block]);
      return nth(before + scale(random.next_u64(), count_of(mixing_.blocks[block])).first);
    }
    for (;;) {
      const std::uint64_t word = random.next_u64();
      if (!even_) return nth(scale(word, total_).first);
      const auto [row, rest] = scale(word, rows_.size());
      const std::uint64_t at = scale(rest, most_).first;
      if (at < rows_[row].count) return place(static_cast<std::size_t>(row), at);
    }
  }

 private:
  /// The record at `at` of all rows' one after the other.
  [[nodiscard]] Place nth(std::uint64_t at) const noexcept {
    const auto row = static_cast<std::size_t>(std::ranges::upper_bound(ends_, at) - ends_.begin());
    return place(row, at - (ends_[row] - rows_[row].count));
  }

  [[nodiscard]] Place place(std::size_t row, std::uint64_t at) const noexcept {
    return {row, rows_[row].first + mixing_.newer(at, rows_[row].count)};
  }

  [[nodiscard]] std::uint64_t first_of(const RowBlock& block) const noexcept {
    return block.first == 0 ? 0 : ends_[block.first - 1];
  }

  [[nodiscard]] std::uint64_t count_of(const RowBlock& block) const noexcept {
    return ends_[block.end - 1] - first_of(block);
  }

  template <class Heads>
  void look_at(const Heads& heads) noexcept {
    total_ = most_ = 0;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const std::uint64_t head = heads(i);
      const std::uint64_t first = head > rings_.slots() ? head - rings_.slots() : 0;
      const std::uint64_t count = head > first ? head - first - 1 : 0;
      rows_[i] = {head, first, count, static_cast<std::size_t>(first % rings_.slots())};
      total_ += count;
      most_ = std::max(most_, count);
      ends_[i] = total_;
    }
    even_ = total_ * 4 >= most_ * rows_.size();
    if (mixing_.mixed()) share_out();
  }

  void share_out() noexcept {
    lengths_.clear();
    std::uint64_t drawn = 0;
    for (const RowBlock& block : mixing_.blocks) {
      const std::uint64_t count = block.share > 0.0 ? count_of(block) : 0;
      lengths_.push_back(count > 0 ? block.share : 0.0);
      drawn += count;
    }
    shares_.set(lengths_);
    total_ = drawn;
  }

  /// The word times `range`: the upper 64 bits, 0 to range - 1, and the lower ones.
  static std::pair<std::uint64_t, std::uint64_t> scale(std::uint64_t word, std::uint64_t range) noexcept {
    const uint128 product = static_cast<uint128>(word) * range;
    return {static_cast<std::uint64_t>(product >> 64), static_cast<std::uint64_t>(product)};
  }

  const Rings& rings_;
  const Mixing& mixing_;
  Stretches shares_;
  std::vector<double> lengths_;
  std::vector<Row> rows_;
  std::vector<std::uint64_t> ends_;  ///< of each row and those before it, how many records have a successor
  std::uint64_t total_ = 0;
  std::uint64_t most_ = 0;
  bool even_ = true;  ///< whether drawing a row first, and again where it has fewer records, is the shorter way
};

/// Fills batches of transitions with steps that are drawn uniformly.
class UniformSampler {
 public:
  UniformSampler(const Rings& rings, const TransitionReader& reader, const Mixing& mixing)
      : rings_(rings), reader_(reader), pairs_(rings, reader), held_(rings, mixing) {}

  /// False where no step can be sampled yet, or writers overwrite whatever is drawn.
  bool fill(const TransitionArrays& out, std::size_t batch, Pcg64& random) {
    held_.look();
    if (held_.total() == 0) return false;
    drawn_.resize(batch);
    for (Drawn& drawn : drawn_) {
      drawn.place = held_.draw(random);
      drawn.slot = held_.slot(drawn.place);
    }
    if (pairs_.reads_all()) return fill_pairs(out, random);
    const std::size_t ahead = reader_.num_ahead();
    for (std::size_t b = 0; b < std::min(ahead, batch); ++b) prefetch(b);
    for (std::size_t b = 0; b < batch; ++b) {
      if (b + ahead < batch) prefetch(b + ahead);
      const Drawn& drawn = drawn_[b];
      const bool found = reader_.read(out, b, drawn.place, drawn.slot, held_.row(drawn.place.row).head);
      if (!found && !fill_one(out, b, random)) return false;
    }
    return true;
  }

  /// Fills transition b with one that is drawn uniformly.
  bool fill_one(const TransitionArrays& out, std::size_t b, Pcg64& random) {
    constexpr int few = 64;
    constexpr int most = 64;
    for (int round = 0; round < most; ++round) {
      held_.look();
      for (int i = 0; i < few && held_.total() > 0; ++i) {
        if (read(out, b, held_.draw(random))) return true;
      }
      // Hardly any is a step that has a successor: look at all of them.
      find();
      if (found_.empty()) return false;
      for (int i = 0; i < few; ++i) {
        const auto at = static_cast<std::uint64_t>(static_cast<uint128>(random.next_u64()) * found_.size() >> 64);
        if (read(out, b, found_[at])) return true;
      }
    }
    return false;
  }

  /// What the rings held when the last batch was drawn.
  [[nodiscard]] const Held& held() const noexcept { return held_; }

 private:
  /// The rest of `fill` where transitions are pairs of records.
  bool fill_pairs(const TransitionArrays& out, Pcg64& random) {
    pairs_.fill(out, drawn_, left_);
    for (const std::size_t b : left_) {
      if (!fill_one(out, b, random)) return false;
    }
    return true;
  }

  [[gnu::always_inline]] void prefetch(std::size_t b) const noexcept {
    reader_.prefetch(drawn_[b].place.row, drawn_[b].slot);
  }

  bool read(const TransitionArrays& out, std::size_t b, const Place& place) const noexcept {
    return reader_.read(out, b, place, held_.slot(place), held_.row(place.row).head);
  }

  void find() {
    found_.clear();
    for (std::size_t row = 0; row < held_.num_rows(); ++row) {
      const Held::Row& own = held_.row(row);
      if (!held_.draws_from(row)) continue;
      for (std::uint64_t i = 0; i < own.count; ++i) {
        const Place place{row, own.first + i};
        if (reader_.samplable(place, own.head)) found_.push_back(place);
      }
    }
  }

  const Rings& rings_;
  const TransitionReader& reader_;
  PairReader pairs_;
  Held held_;
  std::vector<Drawn> drawn_;       ///< a slot stays what it is where `fill_one` looks at the rings again
  std::vector<std::size_t> left_;  ///< transitions to be drawn again
  std::vector<Place> found_;
};

}  // namespace shoal
