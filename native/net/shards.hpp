// The parts of a minibatch: each with a memory of its own, worked on side by side; their gradients are summed in order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "net/kernels.hpp"
#include "net/optimizers.hpp"
#include "sync/team.hpp"

namespace shoal {

inline int at_least_one(int number, const char* name) {
  if (number < 1) {
    throw std::invalid_argument(std::string(name) + " must be at least 1, not " + std::to_string(number));
  }
  return number;
}

/// One shard's share of a minibatch: of its samples, or of its rows.
struct Part {
  std::ptrdiff_t first;
  std::ptrdiff_t count;
};

/// `Memory` has a shard's `grad` and `totals`. Bits depend on the number of shards, never on that of threads.
template <class Memory>
class Shards {
 public:
  template <class Shape>
  Shards(const Shape& net, int grad_shards, const Kernels& kernels, Team& team)
      : kernels_(kernels),
        team_(team),
        num_params_(net.num_params),
        squares_(static_cast<std::size_t>(net.num_params / squares_run)) {
    for (int i = 0; i < at_least_one(grad_shards, "grad_shards"); ++i) {
      shards_.push_back(std::make_unique<Memory>(net));
    }
  }

  [[nodiscard]] int count() const noexcept { return static_cast<int>(shards_.size()); }
  [[nodiscard]] Memory& operator[](int shard) noexcept { return *shards_[static_cast<std::size_t>(shard)]; }

  [[nodiscard]] Part part(int shard, std::ptrdiff_t size) const noexcept {
    const std::ptrdiff_t first = size * shard / count();
    return {first, size * (shard + 1) / count() - first};
  }

  /// work(shard's memory, its part of `size`) for every shard, side by side.
  template <class Work>
  void run(std::ptrdiff_t size, Work&& work) noexcept {
    team_.run(count(), [&](int shard) { work((*this)[shard], part(shard, size)); });
  }

  /// Sums the shards' gradients in their order into the first one's; returns its norm. The bits of the norm are those
  /// of one sum from the first number to the last.
  double add() noexcept {
    float* const grad = shards_[0]->grad.data();
    run_slices(num_params_, [&](std::ptrdiff_t first, std::ptrdiff_t many) {
      for (std::size_t i = 1; i < shards_.size(); ++i) {
        kernels_.add(shards_[i]->grad.data() + first, many, grad + first);
      }
      for (std::ptrdiff_t at = first; at + squares_run <= first + many; at += squares_run) {
        squares_[static_cast<std::size_t>(at / squares_run)] = kernels_.sum_squares(grad + at, squares_run, 0.0);
      }
    });
    double total = 0.0;
    for (const double run : squares_) {
      total += run;
    }
    const auto whole = static_cast<std::ptrdiff_t>(squares_.size()) * squares_run;
    return std::sqrt(kernels_.sum_squares(grad + whole, num_params_ - whole, total));
  }

  /// The sum that `add` has made.
  void copy_gradient(float* to) const noexcept {
    std::memcpy(to, shards_[0]->grad.data(), static_cast<std::size_t>(num_params_) * sizeof(float));
  }

  /// A minibatch's statistics, and then the gradient's norm.
  void write_stats(int num_stats, double norm, double* stats) const noexcept {
    for (int i = 0; i < num_stats; ++i) {
      stats[i] = 0.0;
      for (const auto& shard : shards_) {
        stats[i] += shard->totals.stats[i];
      }
    }
    stats[num_stats] = norm;
  }

  /// One step on the gradient that `add` has made; false and nothing done where its norm is not finite.
  bool apply(Optimizer& optimizer, double norm, double max_norm, float* params) noexcept {
    return apply_gradient(kernels_, optimizer, shards_[0]->grad.data(), num_params_, norm, max_norm, params,
                          [this](std::ptrdiff_t size, auto&& work) { run_slices(size, work); });
  }

 private:
  /// work(first, count) for slices of `size` numbers, side by side where that is worth it. All but the last are whole
  /// runs of squares_run.
  template <class Work>
  void run_slices(std::ptrdiff_t size, Work&& work) noexcept {
    constexpr std::ptrdiff_t worth = 4;  // runs that outweigh the hand-over to another thread
    const std::ptrdiff_t runs = (size + squares_run - 1) / squares_run;
    const std::ptrdiff_t slices =
        std::min<std::ptrdiff_t>(team_.num_threads(), std::max<std::ptrdiff_t>(runs / worth, 1));
    team_.run(static_cast<int>(slices), [&](int slice) {
      const std::ptrdiff_t first = runs * slice / slices * squares_run;
      const std::ptrdiff_t end = std::min(runs * (slice + 1) / slices * squares_run, size);
      work(first, end - first);
    });
  }

  const Kernels& kernels_;
  Team& team_;
  std::ptrdiff_t num_params_;
  std::vector<std::unique_ptr<Memory>> shards_;
  std::vector<double> squares_;  ///< of each whole run of the gradient
};

}  // namespace shoal
