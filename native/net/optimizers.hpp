// Optimizers as torch.optim defines them: their settings, the steps they have made, and their moments in an owner's
// memory.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <variant>

#include "net/kernels.hpp"

namespace shoal {

/// torch.optim.Adam without weight decay.
struct Adam {
  double learning_rate;
  double beta1;
  double beta2;
  double eps;
  std::int64_t step;  ///< steps made so far
  float* exp_avg;
  float* exp_avg_sq;

  /// Counts a step and gives its constants.
  AdamStep begin(float scale) noexcept {
    step += 1;
    const auto t = static_cast<double>(step);
    return {static_cast<float>(1.0 - beta1),
            static_cast<float>(beta2),
            static_cast<float>(1.0 - beta2),
            static_cast<float>(std::sqrt(1.0 - std::pow(beta2, t))),
            static_cast<float>(eps),
            static_cast<float>(learning_rate / (1.0 - std::pow(beta1, t))),
            scale};
  }

  /// The step on numbers [first, first + count).
  void apply(const Kernels& kernels, const AdamStep& now, const float* grad, std::ptrdiff_t first, std::ptrdiff_t count,
             float* params) const noexcept {
    kernels.adam(now, grad + first, count, exp_avg + first, exp_avg_sq + first, params + first);
  }
};

/// torch.optim.RMSprop without momentum, not centered.
struct RmsProp {
  double learning_rate;
  double alpha;
  double eps;
  std::int64_t step;
  float* square_avg;

  RmsPropStep begin(float scale) noexcept {
    step += 1;
    return {static_cast<float>(alpha), static_cast<float>(1.0 - alpha), static_cast<float>(eps),
            static_cast<float>(learning_rate), scale};
  }

  void apply(const Kernels& kernels, const RmsPropStep& now, const float* grad, std::ptrdiff_t first,
             std::ptrdiff_t count, float* params) const noexcept {
    kernels.rmsprop(now, grad + first, count, square_avg + first, params + first);
  }
};

using Optimizer = std::variant<Adam, RmsProp>;

/// torch's clip_grad_norm_: gradients are scaled by max_norm / (norm + 1e-6) where that is below 1.
inline float clip_scale(double norm, double max_norm) noexcept {
  const double scale = max_norm / (norm + 1e-6);
  return scale < 1.0 ? static_cast<float>(scale) : 1.0F;
}

/// All of it in one slice.
inline constexpr auto run_whole = [](std::ptrdiff_t size, auto&& work) { work(0, size); };

/// One step on a gradient of that norm; false and nothing done where the norm is not finite.
/// run(size, work) calls work(first, count) for slices of `size` numbers, all of them.
template <class Run>
bool apply_gradient(const Kernels& kernels, Optimizer& optimizer, const float* grad, std::ptrdiff_t size, double norm,
                    double max_norm, float* params, Run&& run) noexcept {
  if (!std::isfinite(norm)) {
    return false;
  }
  const float scale = clip_scale(norm, max_norm);
  const auto step = [&](auto& chosen) {
    const auto now = chosen.begin(scale);
    run(size,
        [&](std::ptrdiff_t first, std::ptrdiff_t count) { chosen.apply(kernels, now, grad, first, count, params); });
  };
  if (auto* const adam = std::get_if<Adam>(&optimizer)) {
    step(*adam);
  } else {
    step(*std::get_if<RmsProp>(&optimizer));
  }
  return true;
}

}  // namespace shoal
