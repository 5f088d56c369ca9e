// Whose steps a reader draws: blocks of rows, each with its share of every batch, and how much newer steps are
// preferred.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace shoal {

/// Rows [first, end), from whose steps a share of every batch is drawn; shares of blocks that have none go to the rest.
struct RowBlock {
  std::size_t first;
  std::size_t end;
  double share;
};

/// Blocks of rows that follow each other, and the exponent k of the age: P(age <= x) = x^(1/k) of the steps of a row.
struct Mixing {
  std::vector<RowBlock> blocks;
  double recency = 1.0;

  /// All rows as one block, where every step is as likely.
  static Mixing none(std::size_t num_rows) { return {{{0, num_rows, 1.0}}}; }

  /// Blocks that end before these rows; std::invalid_argument where they are not all rows, or no share is above 0.
  static Mixing of(std::size_t num_rows, std::span<const std::size_t> ends, std::span<const double> shares,
                   double recency) {
    Mixing made = ends.empty() && shares.empty() ? none(num_rows) : Mixing{};
    if (!(recency >= 1.0 && recency <= most_recency)) {
      throw std::invalid_argument("recency must be between 1 and 100, not " + std::to_string(recency));
    }
    made.recency = recency;
    if (!made.blocks.empty()) return made;
    if (ends.size() != shares.size()) throw std::invalid_argument("every block of rows needs a share");
    std::size_t first = 0;
    double most = 0.0;
    for (std::size_t i = 0; i < ends.size(); ++i) {
      if (ends[i] <= first) throw std::invalid_argument("blocks of rows must end one after the other");
      if (!(shares[i] >= 0.0 && shares[i] <= 1.0)) throw std::invalid_argument("a share must be between 0 and 1");
      made.blocks.push_back({first, ends[i], shares[i]});
      most = std::max(most, shares[i]);
      first = ends[i];
    }
    if (first != num_rows || most == 0.0) {
      throw std::invalid_argument("blocks of rows must be all " + std::to_string(num_rows) +
                                  " rows, and one must have a share");
    }
    return made;
  }

  [[nodiscard]] bool mixed() const noexcept { return blocks.size() > 1; }

  /// Which of `count` steps, the oldest first, stands for the one at `at` that is drawn uniformly.
  [[nodiscard]] std::uint64_t newer(std::uint64_t at, std::uint64_t count) const noexcept {
    if (recency == 1.0) return at;
    const auto all = static_cast<double>(count);
    const double age = std::pow((static_cast<double>(count - 1 - at) + 0.5) / all, recency) * all;
    return count - 1 - std::min(static_cast<std::uint64_t>(age), count - 1);
  }

 private:
  static constexpr double most_recency = 100.0;
};

/// The stretches of [0, total) that belong to blocks which have something to draw.
class Stretches {
 public:
  /// `lengths`: of each block, 0 where it has nothing.
  void set(const std::vector<double>& lengths) {
    ends_.clear();
    total_ = 0.0;
    for (const double length : lengths) ends_.push_back(total_ += length);
  }

  [[nodiscard]] double total() const noexcept { return total_; }
  [[nodiscard]] double begin(std::size_t block) const noexcept { return block == 0 ? 0.0 : ends_[block - 1]; }
  [[nodiscard]] double length(std::size_t block) const noexcept { return ends_[block] - begin(block); }

  /// The block at a position of [0, total); only one above 0 is found, where there is one.
  [[nodiscard]] std::size_t find(double position) const noexcept {
    std::size_t last = 0;
    for (std::size_t block = 0; block < ends_.size(); ++block) {
      if (length(block) <= 0.0) continue;
      last = block;
      if (position < ends_[block]) break;
    }
    return last;
  }

 private:
  std::vector<double> ends_;
  double total_ = 0.0;
};

}  // namespace shoal
