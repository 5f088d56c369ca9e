// The priorities of one reader (Schaul et al., "Prioritized Experience Replay", 2016): of every step that can be
// sampled, in a sum tree for each block of rows, which follow what writers do to the rings.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "memory/mixing.hpp"
#include "memory/sum_tree.hpp"
#include "memory/transitions.hpp"

namespace shoal {

/// Priority p of each slot, 0 where no transition begins; drawn in proportion to p^alpha.
class Priorities {
 public:
  Priorities(const Rings& rings, const TransitionReader& reader, const Mixing& mixing, double alpha)
      : rings_(rings),
        reader_(reader),
        alpha_(alpha),
        raw_(rings.num_rows() * rings.slots()),
        seen_(rings.num_rows()),
        block_of_(rings.num_rows()) {
    for (std::size_t i = 0; i < mixing.blocks.size(); ++i) {
      const RowBlock& block = mixing.blocks[i];
      const std::size_t leaves = (block.end - block.first) * rings.slots();
      blocks_.push_back({SumTree(block.share > 0.0 ? leaves : 0), block.first * rings.slots(), 0});
      for (std::size_t row = block.first; row < block.end; ++row) block_of_[row] = i;
    }
  }

  [[nodiscard]] std::size_t num_blocks() const noexcept { return blocks_.size(); }
  [[nodiscard]] const SumTree& tree(std::size_t block) const noexcept { return blocks_[block].tree; }
  /// Steps of a block that can be sampled.
  [[nodiscard]] std::uint64_t count(std::size_t block) const noexcept { return blocks_[block].count; }
  /// Where a block's leaves begin.
  [[nodiscard]] std::size_t first_leaf(std::size_t block) const noexcept { return blocks_[block].first_leaf; }
  [[nodiscard]] std::size_t block_of(std::size_t leaf) const noexcept { return block_of_[leaf / rings_.slots()]; }
  /// What a leaf's chance is in proportion to.
  [[nodiscard]] double value(std::size_t leaf) const noexcept {
    const Block& own = blocks_[block_of(leaf)];
    return own.tree.leaf(leaf - own.first_leaf);
  }
  [[nodiscard]] std::uint64_t stale() const noexcept { return stale_; }
  [[nodiscard]] float most() const noexcept { return most_; }
  [[nodiscard]] const std::vector<float>& raw() const noexcept { return raw_; }
  [[nodiscard]] const std::vector<std::uint64_t>& seen() const noexcept { return seen_; }

  void set_alpha(double alpha) {
    if (alpha == alpha_) return;
    alpha_ = alpha;
    rebuild();
  }

  /// Steps that are new get the greatest priority so far; those that were overwritten lose theirs. Rows of a block
  /// without a share have none.
  void catch_up() {
    const double value = power(most_);
    for (std::size_t row = 0; row < seen_.size(); ++row) {
      const std::uint64_t head = rings_.num_records(row);
      if (head == seen_[row]) continue;
      if (blocks_[block_of_[row]].tree.num_leaves() > 0) {
        if (head < seen_[row]) forget(row);  // the memory was restored
        follow(row, head, value);
      }
      seen_[row] = head;
    }
  }

  /// The place of a leaf, as far as the rings were followed.
  [[nodiscard]] Place place(std::size_t leaf) const noexcept {
    const std::size_t row = leaf / rings_.slots();
    return {row, seen_[row] - 1 - age(leaf, seen_[row])};
  }

  [[nodiscard]] std::size_t leaf(const Place& place) const noexcept {
    return place.row * rings_.slots() + place.index % rings_.slots();
  }

  /// Whether the record is one that can be sampled, as far as the rings were followed.
  [[nodiscard]] bool holds(const Place& place) const noexcept {
    return place.index < seen_[place.row] && seen_[place.row] - place.index <= rings_.slots() && raw_[leaf(place)] > 0;
  }

  /// p = |error| + epsilon of each key, in order; keys of records that were overwritten are counted and left out.
  /// std::invalid_argument, with nothing changed, for a key that was never sampled or an error that is not finite.
  void update(std::span<const std::int64_t> keys, std::span<const float> errors, double epsilon) {
    catch_up();
    const PlaceKeys numbers{rings_.num_rows()};
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const Place place = numbers.place(keys[i]);
      if (!std::isfinite(errors[i])) {
        throw std::invalid_argument("the error at " + std::to_string(i) + " is not finite");
      }
      if (keys[i] < 0 || place.index >= seen_[place.row] || (!overwritten(place) && !holds(place))) {
        throw std::invalid_argument("the key at " + std::to_string(i) +
                                    " is of no transition that can be sampled: " + std::to_string(keys[i]));
      }
    }
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const Place place = numbers.place(keys[i]);
      if (overwritten(place)) {
        ++stale_;
        continue;
      }
      const double size = std::abs(static_cast<double>(errors[i])) + epsilon;
      const auto priority = static_cast<float>(std::min<double>(size, std::numeric_limits<float>::max()));
      most_ = std::max(most_, priority);
      raw_[leaf(place)] = priority;
      Block& own = blocks_[block_of_[place.row]];
      own.tree.set(leaf(place) - own.first_leaf, power(priority));
    }
  }

  /// std::invalid_argument, with nothing changed, where these are no reader's of these rings.
  void restore(std::span<const float> raw, std::span<const std::uint64_t> seen, float most, std::uint64_t stale) {
    bool good = raw.size() == raw_.size() && seen.size() == seen_.size() && std::isfinite(most) && most > 0;
    for (std::size_t i = 0; good && i < raw.size(); ++i) good = std::isfinite(raw[i]) && raw[i] >= 0;
    for (std::size_t row = 0; good && row < seen.size(); ++row) good = seen[row] <= rings_.num_records(row);
    for (std::size_t i = 0; good && i < raw.size(); ++i) good = raw[i] == 0 || begins(i, seen);
    if (!good) throw std::invalid_argument("these priorities are not of this memory, or they are damaged");
    std::ranges::copy(raw, raw_.begin());
    std::ranges::copy(seen, seen_.begin());
    most_ = most;
    stale_ = stale;
    rebuild();
  }

 private:
  struct Block {
    SumTree tree;
    std::size_t first_leaf;
    std::uint64_t count;
  };

  /// How many records a row of `seen` records has after that of a leaf.
  [[nodiscard]] std::uint64_t age(std::size_t leaf, std::uint64_t seen) const noexcept {
    const std::size_t slot = leaf % rings_.slots();
    const std::size_t newest = (seen - 1) % rings_.slots();
    return newest >= slot ? newest - slot : newest + rings_.slots() - slot;
  }

  /// Whether a transition begins at a leaf, of which rows of `seen` records had seen the successor.
  [[nodiscard]] bool begins(std::size_t leaf, std::span<const std::uint64_t> seen) const noexcept {
    const std::size_t row = leaf / rings_.slots();
    if (seen[row] == 0 || blocks_[block_of_[row]].tree.num_leaves() == 0) return false;
    const std::uint64_t after = age(leaf, seen[row]);
    if (after == 0 || after >= seen[row]) return false;
    const Place place{row, seen[row] - 1 - after};
    const std::uint64_t head = rings_.num_records(row);
    return head - place.index > rings_.slots() || reader_.samplable(place, head);
  }

  [[nodiscard]] double power(float priority) const noexcept {
    return priority > 0 ? std::pow(static_cast<double>(priority), alpha_) : 0.0;
  }

  [[nodiscard]] bool overwritten(const Place& place) const noexcept {
    return seen_[place.row] > place.index && seen_[place.row] - place.index > rings_.slots();
  }

  /// Takes in the records since the row was last looked at, and the one before them, whose successor is there now.
  void follow(std::size_t row, std::uint64_t head, double value) {
    const std::uint64_t before = seen_[row] > 0 ? seen_[row] - 1 : 0;
    const std::uint64_t first = head > rings_.slots() ? std::max(before, head - rings_.slots()) : before;
    const std::size_t base = row * rings_.slots();
    Block& own = blocks_[block_of_[row]];
    const std::size_t base_in_tree = base - own.first_leaf;
    std::size_t slot = first % rings_.slots();
    std::size_t begun = slot;
    for (std::uint64_t index = first; index < head; ++index) {
      const bool begins = reader_.samplable({row, index}, head);
      // A record that was there before, and not the last one then, keeps its priority.
      float& raw = raw_[base + slot];
      own.count += (begins ? 1 : 0) - (raw > 0 ? 1 : 0);
      raw = begins ? most_ : 0.0F;
      own.tree.put(base_in_tree + slot, begins ? value : 0.0);
      if (++slot == rings_.slots()) {
        own.tree.refresh(base_in_tree + begun, base_in_tree + slot);
        slot = begun = 0;
      }
    }
    own.tree.refresh(base_in_tree + begun, base_in_tree + slot);
  }

  void forget(std::size_t row) {
    const std::size_t base = row * rings_.slots();
    Block& own = blocks_[block_of_[row]];
    for (std::size_t i = base; i < base + rings_.slots(); ++i) {
      own.count -= raw_[i] > 0 ? 1 : 0;
      raw_[i] = 0.0F;
      own.tree.put(i - own.first_leaf, 0.0);
    }
    own.tree.refresh(base - own.first_leaf, base - own.first_leaf + rings_.slots());
    seen_[row] = 0;
  }

  void rebuild() {
    for (Block& own : blocks_) {
      own.count = 0;
      for (std::size_t i = 0; i < own.tree.num_leaves(); ++i) {
        const float priority = raw_[own.first_leaf + i];
        own.count += priority > 0 ? 1 : 0;
        own.tree.put(i, power(priority));
      }
      own.tree.refresh(0, own.tree.num_leaves());
    }
  }

  const Rings& rings_;
  const TransitionReader& reader_;
  double alpha_;
  std::vector<Block> blocks_;
  std::vector<float> raw_;
  std::vector<std::uint64_t> seen_;    ///< of each row, how many records were looked at
  std::vector<std::size_t> block_of_;  ///< of each row
  std::uint64_t stale_ = 0;
  float most_ = 1.0F;
};

}  // namespace shoal
