// Fills batches with steps that are drawn by their priorities, and weighs them.
//
// P(i) = u / N + (1 - u) p_i^alpha / sum_j p_j^alpha over the N steps that can be sampled, times the share of its block
// of rows where there are several, whose N and sum these are then; weight = (N P(i))^-beta, divided by the greatest of
// the batch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "math/pcg64.hpp"
#include "memory/priorities.hpp"
#include "memory/uniform.hpp"

namespace shoal {

class PrioritizedSampler {
 public:
  /// `uniform`: u, the share of the steps that is drawn uniformly.
  PrioritizedSampler(const Rings& rings, const TransitionReader& reader, const Mixing& mixing, double alpha,
                     double uniform)
      : reader_(reader),
        mixing_(mixing),
        held_(rings, mixing),
        uniform_(uniform),
        priorities_(rings, reader, mixing, alpha) {}

  [[nodiscard]] Priorities& priorities() noexcept { return priorities_; }
  /// What the steps that can be sampled weigh together, now: the sum of their priorities^alpha.
  [[nodiscard]] double mass() { return look() ? stretches_.total() : 0.0; }
  /// How many they are.
  [[nodiscard]] std::uint64_t count() {
    look();
    std::uint64_t sum = 0;
    for (std::size_t block = 0; block < priorities_.num_blocks(); ++block) sum += priorities_.count(block);
    return sum;
  }
  /// The least chance of the last batch, which its greatest weight is of.
  [[nodiscard]] double least() const noexcept { return least_; }

  /// False where no step can be sampled yet, or writers overwrite whatever is drawn.
  bool fill(const TransitionArrays& out, std::size_t batch, double beta, Pcg64& random) {
    if (!look()) return false;
    leaves_.resize(batch);
    chances_.resize(batch);
    const double part = stretches_.total() / static_cast<double>(batch);
    for (std::size_t b = 0; b < batch; ++b) {
      leaves_[b] = draw(part * static_cast<double>(b), part, random);
      const Place place = priorities_.place(leaves_[b]);
      reader_.prefetch(place.row, held_.slot(place));
    }
    for (std::size_t b = 0; b < batch; ++b) {
      if (!read(out, b) && !redraw(out, b, random)) return false;
    }
    weigh(out, batch, beta);
    return true;
  }

 private:
  /// Follows the writers; false where nothing can be sampled. One block's stretch is as long as its tree's sum.
  bool look() {
    priorities_.catch_up();
    held_.look(priorities_.seen());
    lengths_.clear();
    for (std::size_t block = 0; block < priorities_.num_blocks(); ++block) {
      const bool any = priorities_.count(block) > 0;
      const double length = mixing_.mixed() ? mixing_.blocks[block].share : priorities_.tree(block).total();
      lengths_.push_back(any ? length : 0.0);
    }
    stretches_.set(lengths_);
    return stretches_.total() > 0.0;
  }

  /// A leaf of [from, from + length) of the stretches, or any one for the uniform share.
  std::size_t draw(double from, double length, Pcg64& random) {
    if (uniform_ > 0.0 && random.next_double() < uniform_) return draw_uniformly(random);
    const double position = from + length * random.next_double();
    const std::size_t block = stretches_.find(position);
    const SumTree& tree = priorities_.tree(block);
    const double within = position - stretches_.begin(block);
    return priorities_.first_leaf(block) + tree.find(within * (tree.total() / stretches_.length(block)));
  }

  std::size_t draw_uniformly(Pcg64& random) {
    constexpr int many = 256;
    for (int i = 0; i < many; ++i) {
      const Place place = held_.draw(random);
      if (priorities_.holds(place)) return priorities_.leaf(place);
    }
    const std::size_t block = mixing_.mixed() ? stretches_.find(stretches_.total() * random.next_double()) : 0;
    const std::uint64_t count = priorities_.count(block);
    const auto nth = static_cast<std::uint64_t>(static_cast<uint128>(random.next_u64()) * count >> 64);
    std::uint64_t passed = 0;
    std::size_t leaf = priorities_.first_leaf(block);
    for (; priorities_.raw()[leaf] <= 0 || passed++ < nth; ++leaf) {
    }
    return leaf;
  }

  bool read(const TransitionArrays& out, std::size_t b) noexcept {
    const std::size_t block = priorities_.block_of(leaves_[b]);
    const double own = priorities_.value(leaves_[b]) / priorities_.tree(block).total();
    const double share = stretches_.length(block) / stretches_.total();
    chances_[b] = share * (uniform_ / static_cast<double>(priorities_.count(block)) + (1.0 - uniform_) * own);
    const Place place = priorities_.place(leaves_[b]);
    return reader_.read(out, b, place, held_.slot(place), held_.row(place.row).head);
  }

  /// A writer was faster: looks again, and draws from all.
  bool redraw(const TransitionArrays& out, std::size_t b, Pcg64& random) {
    constexpr int most = 4096;
    for (int i = 0; i < most; ++i) {
      if (!look()) return false;
      leaves_[b] = draw(0.0, stretches_.total(), random);
      if (read(out, b)) return true;
    }
    return false;
  }

  void weigh(const TransitionArrays& out, std::size_t batch, double beta) noexcept {
    // The greatest weight is that of the least chance.
    least_ = *std::ranges::min_element(chances_);
    for (std::size_t b = 0; b < batch; ++b) {
      out.weight[b] = static_cast<float>(std::pow(chances_[b] / least_, -beta));
    }
  }

  const TransitionReader& reader_;
  const Mixing& mixing_;
  Held held_;
  double uniform_;
  Priorities priorities_;
  Stretches stretches_;
  std::vector<double> lengths_;
  std::vector<std::size_t> leaves_;
  std::vector<double> chances_;
  double least_ = 1.0;
};

}  // namespace shoal
