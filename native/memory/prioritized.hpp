// Fills batches with steps that are drawn by their priorities, and weighs them.
//
// P(i) = u / N + (1 - u) p_i^alpha / sum_j p_j^alpha over the N steps that can be sampled; weight = (N P(i))^-beta,
// divided by the greatest of the batch.
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
  PrioritizedSampler(const Rings& rings, const TransitionReader& reader, double alpha, double uniform)
      : reader_(reader), held_(rings), uniform_(uniform), priorities_(rings, reader, alpha) {}

  [[nodiscard]] Priorities& priorities() noexcept { return priorities_; }

  /// False where no step can be sampled yet, or writers overwrite whatever is drawn.
  bool fill(const TransitionArrays& out, std::size_t batch, double beta, Pcg64& random) {
    look();
    if (priorities_.count() == 0) return false;
    leaves_.resize(batch);
    chances_.resize(batch);
    const double part = priorities_.tree().total() / static_cast<double>(batch);
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
  void look() {
    priorities_.catch_up();
    held_.look(priorities_.seen());
  }

  /// A leaf of the stretch [from, from + length) of the tree, or any one for the uniform share.
  std::size_t draw(double from, double length, Pcg64& random) {
    if (uniform_ > 0.0 && random.next_double() < uniform_) return draw_uniformly(random);
    return priorities_.tree().find(from + length * random.next_double());
  }

  std::size_t draw_uniformly(Pcg64& random) {
    constexpr int many = 256;
    for (int i = 0; i < many; ++i) {
      const Place place = held_.draw(random);
      if (priorities_.holds(place)) return priorities_.leaf(place);
    }
    const auto nth = static_cast<std::uint64_t>(static_cast<uint128>(random.next_u64()) * priorities_.count() >> 64);
    std::uint64_t passed = 0;
    std::size_t leaf = 0;
    for (; priorities_.raw()[leaf] <= 0 || passed++ < nth; ++leaf) {
    }
    return leaf;
  }

  bool read(const TransitionArrays& out, std::size_t b) noexcept {
    const double own = priorities_.tree().leaf(leaves_[b]) / priorities_.tree().total();
    chances_[b] = uniform_ / static_cast<double>(priorities_.count()) + (1.0 - uniform_) * own;
    const Place place = priorities_.place(leaves_[b]);
    return reader_.read(out, b, place, held_.slot(place), held_.row(place.row).head);
  }

  /// A writer was faster: looks again, and draws from all.
  bool redraw(const TransitionArrays& out, std::size_t b, Pcg64& random) {
    constexpr int most = 4096;
    for (int i = 0; i < most; ++i) {
      look();
      if (priorities_.count() == 0) return false;
      leaves_[b] = draw(0.0, priorities_.tree().total(), random);
      if (read(out, b)) return true;
    }
    return false;
  }

  void weigh(const TransitionArrays& out, std::size_t batch, double beta) noexcept {
    // The greatest weight is that of the least chance.
    const double least = *std::ranges::min_element(chances_);
    for (std::size_t b = 0; b < batch; ++b) {
      out.weight[b] = static_cast<float>(std::pow(chances_[b] / least, -beta));
    }
  }

  const TransitionReader& reader_;
  Held held_;
  double uniform_;
  Priorities priorities_;
  std::vector<std::size_t> leaves_;
  std::vector<double> chances_;
};

}  // namespace shoal
