// A sum tree: draws a leaf with a probability in proportion to its value, and changes values, in O(log) steps.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

namespace shoal {

/// Every node is the sum of its eight children, always computed from all of them: no error adds up.
class SumTree {
 public:
  explicit SumTree(std::size_t num_leaves) : num_leaves_(num_leaves) {
    for (std::size_t size = std::max<std::size_t>(num_leaves, 1);; size = levels_.back().size() / fan) {
      levels_.emplace_back((size + fan - 1) / fan * fan);
      if (levels_.back().size() == fan) break;
    }
  }

  [[nodiscard]] std::size_t num_leaves() const noexcept { return num_leaves_; }
  [[nodiscard]] double leaf(std::size_t at) const noexcept { return levels_[0][at]; }
  [[nodiscard]] double total() const noexcept { return sum(levels_.back().data()); }

  /// Changes a leaf and all above it.
  void set(std::size_t at, double value) noexcept {
    levels_[0][at] = value;
    refresh(at, at + 1);
  }

  /// Changes a leaf alone; `refresh` must follow.
  void put(std::size_t at, double value) noexcept { levels_[0][at] = value; }

  /// Computes all above the leaves [first, last).
  void refresh(std::size_t first, std::size_t last) noexcept {
    if (first == last) return;
    for (std::size_t level = 1; level < levels_.size(); ++level) {
      first /= fan;
      last = (last - 1) / fan + 1;
      for (std::size_t node = first; node < last; ++node) {
        levels_[level][node] = sum(levels_[level - 1].data() + node * fan);
      }
    }
  }

  /// The leaf at `position` of [0, total) where the leaves lie one after the other, each as long as its value. Only a
  /// leaf above 0 is found, where there is one.
  [[nodiscard]] std::size_t find(double position) const noexcept {
    std::size_t node = 0;
    for (std::size_t level = levels_.size(); level-- > 0;) {
      const double* children = levels_[level].data() + node * fan;
      std::size_t last = 0;
      std::size_t child = 0;
      for (; child < fan; ++child) {
        if (children[child] > 0.0) last = child;
        if (position < children[child]) break;
        position -= children[child];
      }
      // Rounding may lead past the end.
      node = node * fan + (child < fan ? child : last);
    }
    return node;
  }

 private:
  static constexpr std::size_t fan = 8;

  static double sum(const double* x) noexcept {
    return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
  }

  std::size_t num_leaves_;
  std::vector<std::vector<double>> levels_;  ///< the leaves first, then what is above them
};

}  // namespace shoal
