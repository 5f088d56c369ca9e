// Optimizer steps over one flat vector of parameters: Adam and RMSProp as torch.optim defines them.
#pragma once

#include "net/kernels.hpp"
#include "net/vec.hpp"

namespace shoal::SHOAL_ISA {

static void add(const float* from, std::ptrdiff_t size, float* to) noexcept {
  std::ptrdiff_t i = 0;
  for (; i + vec_lanes <= size; i += vec_lanes) {
    store(to + i, load(to + i) + load(from + i));
  }
  for (; i < size; ++i) {
    to[i] += from[i];
  }
}

static double sum_squares(const float* values, std::ptrdiff_t size, double total) noexcept {
  for (std::ptrdiff_t first = 0; first < size; first += squares_run) {
    const std::ptrdiff_t end = first + squares_run < size ? first + squares_run : size;
    Vec sum = {};
    std::ptrdiff_t i = first;
    for (; i + vec_lanes <= end; i += vec_lanes) {
      const Vec x = load(values + i);
      sum += x * x;
    }
    for (; i < end; ++i) {
      total += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
    total += lane_total(sum);
  }
  return total;
}

/// Copies `count` floats of a tail into a whole vector, and back.
SHOAL_INLINE Vec load_some(const float* from, std::ptrdiff_t count) noexcept {
  float lanes[vec_lanes] = {};
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    lanes[i] = from[i];
  }
  return load(lanes);
}

SHOAL_INLINE void store_some(float* to, std::ptrdiff_t count, Vec x) noexcept {
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    to[i] = x[i];
  }
}

SHOAL_INLINE void adam_lanes(const AdamStep& step, Vec grad, Vec& exp_avg, Vec& exp_avg_sq, Vec& param) noexcept {
  grad = grad * step.grad_scale;
  exp_avg += step.beta1_rest * (grad - exp_avg);
  exp_avg_sq = exp_avg_sq * step.beta2 + step.beta2_rest * (grad * grad);
  param -= step.step_size * exp_avg / (square_root(exp_avg_sq) / step.bias2_sqrt + step.eps);
}

/// Adam (Kingma and Ba 2015).
static void adam(const AdamStep& step, const float* grad, std::ptrdiff_t size, float* exp_avg, float* exp_avg_sq,
                 float* params) noexcept {
  std::ptrdiff_t i = 0;
  for (; i + vec_lanes <= size; i += vec_lanes) {
    Vec m = load(exp_avg + i);
    Vec v = load(exp_avg_sq + i);
    Vec p = load(params + i);
    adam_lanes(step, load(grad + i), m, v, p);
    store(exp_avg + i, m);
    store(exp_avg_sq + i, v);
    store(params + i, p);
  }
  const std::ptrdiff_t left = size - i;
  Vec m = load_some(exp_avg + i, left);
  Vec v = load_some(exp_avg_sq + i, left);
  Vec p = load_some(params + i, left);
  adam_lanes(step, load_some(grad + i, left), m, v, p);
  store_some(exp_avg + i, left, m);
  store_some(exp_avg_sq + i, left, v);
  store_some(params + i, left, p);
}

SHOAL_INLINE void rmsprop_lanes(const RmsPropStep& step, Vec grad, Vec& square_avg, Vec& param) noexcept {
  grad = grad * step.grad_scale;
  square_avg = square_avg * step.alpha + step.alpha_rest * (grad * grad);
  param -= step.learning_rate * grad / (square_root(square_avg) + step.eps);
}

/// RMSProp (Tieleman and Hinton 2012), without momentum, not centered.
static void rmsprop(const RmsPropStep& step, const float* grad, std::ptrdiff_t size, float* square_avg,
                    float* params) noexcept {
  std::ptrdiff_t i = 0;
  for (; i + vec_lanes <= size; i += vec_lanes) {
    Vec v = load(square_avg + i);
    Vec p = load(params + i);
    rmsprop_lanes(step, load(grad + i), v, p);
    store(square_avg + i, v);
    store(params + i, p);
  }
  const std::ptrdiff_t left = size - i;
  Vec v = load_some(square_avg + i, left);
  Vec p = load_some(params + i, left);
  rmsprop_lanes(step, load_some(grad + i, left), v, p);
  store_some(square_avg + i, left, v);
  store_some(params + i, left, p);
}

}  // namespace shoal::SHOAL_ISA
