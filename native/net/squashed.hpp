// A squashed Gaussian: tanh of what a tower's outputs, means and log deviations, give with noise; and the way back.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace shoal {

/// Log deviations are kept within these (Haarnoja et al. 2018).
constexpr float least_log_std = -20.0F;
constexpr float most_log_std = 2.0F;
constexpr float half_log_two_pi = 0.918938533F;
constexpr float log_two = 0.693147181F;

/// log(1 - tanh(x)^2), stable for large |x|.
inline float log_slope(float x) noexcept {
  const float softplus = std::log1p(std::exp(-2.0F * std::abs(x))) + std::max(-2.0F * x, 0.0F);
  return 2.0F * (log_two - x - softplus);
}

/// One row: `outputs` holds `size` means and as many log deviations, `noise` standard normal numbers. Writes the
/// squashed action; returns its log-density in [-1, 1]^size.
inline float squashed_sample(const float* outputs, const float* noise, std::ptrdiff_t size, float* action) noexcept {
  float log_prob = 0.0F;
  for (std::ptrdiff_t d = 0; d < size; ++d) {
    const float log_std = std::clamp(outputs[size + d], least_log_std, most_log_std);
    const float x = outputs[d] + std::exp(log_std) * noise[d];
    action[d] = std::tanh(x);
    log_prob -= 0.5F * noise[d] * noise[d] + log_std + half_log_two_pi + log_slope(x);
  }
  return log_prob;
}

/// The gradient with respect to the outputs, from those with respect to the action and to its log-density: the noise
/// stays what it was. d log_slope(x) / dx = -2 tanh(x).
inline void squashed_slopes(const float* outputs, const float* noise, const float* action, const float* action_slopes,
                            float log_prob_slope, std::ptrdiff_t size, float* slopes) noexcept {
  for (std::ptrdiff_t d = 0; d < size; ++d) {
    const float log_std = outputs[size + d];
    const bool kept = log_std >= least_log_std && log_std <= most_log_std;
    const float x_slope = action_slopes[d] * (1.0F - action[d] * action[d]) + log_prob_slope * 2.0F * action[d];
    slopes[d] = x_slope;
    slopes[size + d] = kept ? x_slope * std::exp(log_std) * noise[d] - log_prob_slope : 0.0F;
  }
}

}  // namespace shoal
