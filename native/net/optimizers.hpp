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

  void apply(const Kernels& kernels, const float* grad, std::ptrdiff_t size, float scale, float* params) noexcept {
    step += 1;
    const auto t = static_cast<double>(step);
    const AdamStep now{static_cast<float>(1.0 - beta1),
                       static_cast<float>(beta2),
                       static_cast<float>(1.0 - beta2),
                       static_cast<float>(std::sqrt(1.0 - std::pow(beta2, t))),
                       static_cast<float>(eps),
                       static_cast<float>(learning_rate / (1.0 - std::pow(beta1, t))),
                       scale};
    kernels.adam(now, grad, size, exp_avg, exp_avg_sq, params);
  }
};

/// torch.optim.RMSprop without momentum, not centered.
struct RmsProp {
  double learning_rate;
  double alpha;
  double eps;
  std::int64_t step;
  float* square_avg;

  void apply(const Kernels& kernels, const float* grad, std::ptrdiff_t size, float scale, float* params) noexcept {
    step += 1;
    const RmsPropStep now{static_cast<float>(alpha), static_cast<float>(1.0 - alpha), static_cast<float>(eps),
                          static_cast<float>(learning_rate), scale};
    kernels.rmsprop(now, grad, size, square_avg, params);
  }
};

using Optimizer = std::variant<Adam, RmsProp>;

/// torch's clip_grad_norm_: gradients are scaled by max_norm / (norm + 1e-6) where that is below 1.
inline float clip_scale(double norm, double max_norm) noexcept {
  const double scale = max_norm / (norm + 1e-6);
  return scale < 1.0 ? static_cast<float>(scale) : 1.0F;
}

/// One step on a gradient of that norm; false and nothing done where the norm is not finite.
inline bool apply_gradient(const Kernels& kernels, Optimizer& optimizer, const float* grad, std::ptrdiff_t size,
                           double norm, double max_norm, float* params) noexcept {
  if (!std::isfinite(norm)) {
    return false;
  }
  const float scale = clip_scale(norm, max_norm);
  std::visit([&](auto& chosen) { chosen.apply(kernels, grad, size, scale, params); }, optimizer);
  return true;
}

}  // namespace shoal
