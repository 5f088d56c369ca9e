// The C++ side of shoal._native's optimizers.
#pragma once

#include <nanobind/nanobind.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bind/plan.hpp"
#include "net/optimizers.hpp"

namespace shoal {

inline double checked_norm(double max_grad_norm) {
  if (!(max_grad_norm > 0.0)) {
    throw std::invalid_argument("max_grad_norm must be greater than 0 (math.inf: no clipping), not " +
                                std::to_string(max_grad_norm));
  }
  return max_grad_norm;
}

/// `_native.Optimizer`: settings, steps so far, and the moments' arrays, kept alive.
class NativeOptimizer {
 public:
  NativeOptimizer(std::vector<ArrayOut> moments, Optimizer state, const std::string& kernels)
      : moments_(std::move(moments)), size_(moments_[0].size()), kernels_(find_kernels(kernels)), state_(state) {}

  [[nodiscard]] Optimizer& state() noexcept { return state_; }
  [[nodiscard]] Size size() const noexcept { return size_; }

  /// ValueError where it does not step on so many parameters.
  void check_fit(Size num_params) const {
    if (size_ != num_params) {
      throw std::invalid_argument("optimizer: its moments hold " + std::to_string(size_) + " numbers, the plan has " +
                                  std::to_string(num_params) + " parameters");
    }
  }

  double apply(const ArrayOut& params, const ArrayIn& grad, double max_grad_norm) {
    auto* const to = numbers<float>(params, "params", {size_});
    const auto* const from = numbers<float>(grad, "grad", {size_});
    const double limit = checked_norm(max_grad_norm);
    const nanobind::gil_scoped_release released;
    const auto size = static_cast<std::ptrdiff_t>(size_);
    const double norm = std::sqrt(kernels_.sum_squares(from, size, 0.0));
    apply_gradient(kernels_, state_, from, size, norm, limit, to, run_whole);
    return norm;
  }

 private:
  std::vector<ArrayOut> moments_;
  Size size_;
  const Kernels& kernels_;
  Optimizer state_;
};

void bind_optimizers(const nanobind::module_& module);

}  // namespace shoal
