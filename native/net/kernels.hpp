// What the kernels offer, as a table of functions: one table for each instruction set that net/kernels.cpp is built
// for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "net/shape.hpp"

namespace shoal {

/// What a row's action noise is a function of.
struct Noise {
  std::uint64_t seed;
  std::uint32_t stream;
  const std::int64_t* rows;
  const std::int64_t* steps;
  bool greedy;  ///< no noise: the most probable action, or the mean
};

struct ActOut {
  std::int64_t* choice;  ///< [count, num_actions] of a categorical head
  float* action;         ///< [count, num_actions] of a Gaussian head
  float* log_prob;       ///< [count]
  float* value;          ///< [count]
};

/// The samples of a rollout that a minibatch's `index` picks from.
struct Samples {
  const float* obs;
  const std::int64_t* choice;
  const float* action;
  const float* log_prob;  ///< PPO only
  const float* value;     ///< PPO only
  const float* advantage;
  const float* target;
  const std::int32_t* index;
  std::ptrdiff_t count;  ///< of index
};

struct Loss {
  bool ppo;  ///< otherwise A2C: -log_prob * advantage
  bool clip_vloss;
  float clip_coef;
  float ent_coef;
  float vf_coef;
  float advantage_mean;
  float advantage_scale;
  float weight;  ///< of one sample: 1 / minibatch size
};

/// A minibatch's means, and the position in `index` of the first action out of range (-1 for none).
struct LossSums {
  double policy_loss;
  double value_loss;
  double entropy;
  double approx_kl;
  double clip_fraction;
  std::ptrdiff_t bad;
};

struct AdamStep {
  float beta1_rest;  ///< 1 - beta1
  float beta2;
  float beta2_rest;
  float bias2_sqrt;  ///< sqrt(1 - beta2^step)
  float eps;
  float step_size;  ///< learning rate / (1 - beta1^step)
  float grad_scale;
};

struct RmsPropStep {
  float alpha;
  float alpha_rest;
  float eps;
  float learning_rate;
  float grad_scale;
};

struct ImageShape {
  std::ptrdiff_t places;   ///< height * width
  std::ptrdiff_t colours;  ///< at least 1
  bool colours_last;       ///< as they are given
};

/// Of each place of an image, colours last [places, colours].
struct PixelMoments {
  const float* mean;
  const float* inv_std;
  float clip;
};

struct Kernels {
  const char* name;
  /// Logits (or means) [count, num_outputs] and values [count] of observations [count, obs_size]; logits may be null.
  void (*forward)(const Net&, const float* params, const float* obs, std::ptrdiff_t count, const Workspace&,
                  float* logits, float* value) noexcept;
  void (*act)(const Net&, const float* params, const float* obs, std::ptrdiff_t count, const Noise&, const Workspace&,
              const ActOut&) noexcept;
  /// Gradient of the loss of samples index[first, first + count) into grad [num_params]; `sums` is num_sums of scratch.
  void (*gradient)(const Net&, const float* params, const Samples&, std::ptrdiff_t first, std::ptrdiff_t count,
                   const Loss&, const Workspace&, float* sums, float* grad, LossSums&) noexcept;
  void (*add)(const float* from, std::ptrdiff_t size, float* to) noexcept;
  double (*sum_squares)(const float* values, std::ptrdiff_t size) noexcept;
  void (*adam)(const AdamStep&, const float* grad, std::ptrdiff_t size, float* exp_avg, float* exp_avg_sq,
               float* params) noexcept;
  void (*rmsprop)(const RmsPropStep&, const float* grad, std::ptrdiff_t size, float* square_avg,
                  float* params) noexcept;
  /// Images of bytes as bfloat16 (its bits), normalised, colours last.
  void (*normalise_pixels)(const std::uint8_t* pixels, std::ptrdiff_t images, const ImageShape&, const PixelMoments&,
                           std::uint16_t* out) noexcept;
  /// Multiply-adds on registers and how many operations they are: the machine's limit.
  float (*multiply_adds)(std::ptrdiff_t rounds) noexcept;
  double (*multiply_add_flops)(std::ptrdiff_t rounds) noexcept;
};

#if defined(__x86_64__)
namespace x86_64_v2 {
const Kernels& kernels() noexcept;
}
namespace x86_64_v3 {
const Kernels& kernels() noexcept;
}
namespace x86_64_v4 {
const Kernels& kernels() noexcept;
}
#else
namespace baseline {
const Kernels& kernels() noexcept;
}
#endif

}  // namespace shoal
