// Action distributions over lanes of samples: choosing an action, its log-probability, the entropy and their gradients.
#pragma once

#include "math/philox.hpp"
#include "net/functions.hpp"
#include "net/kernels.hpp"

namespace shoal::SHOAL_ISA {

constexpr float log_sqrt_two_pi = 0.918938533F;

/// What log-softmax needs of one sub-action's logits: their maximum and ln sum exp(z - maximum).
struct Softmax {
  Vec top;
  Vec log_sum;
};

/// The logit of an option that a mask forbids: beside any real logit its probability is exactly 0.
constexpr float never = -1e30F;

/// e^below, below <= 0. Masked: exactly 0 for a forbidden option.
template <bool Masked>
SHOAL_INLINE Vec option_weight(Vec below) noexcept {
  const Vec e = exponential(below);
  if constexpr (Masked) {
    return below < 0.5F * never ? Vec{} : e;
  } else {
    return e;
  }
}

/// Overwrites the logits of forbidden options. mask: rows of num_outputs; without an index rows 0 to width - 1.
static inline void mask_outputs(const Net& net, const std::uint8_t* mask, const std::int32_t* index, int width,
                                float* z) noexcept {
  for (int s = 0; s < width; ++s) {
    const std::uint8_t* row = mask + (index == nullptr ? s : static_cast<std::ptrdiff_t>(index[s])) * net.num_outputs;
    for (int j = 0; j < net.num_outputs; ++j) {
      z[j * chunk_samples + s] = row[j] != 0 ? z[j * chunk_samples + s] : never;
    }
  }
}

SHOAL_INLINE Vec highest(const float* z, int n) noexcept {
  Vec top = load(z);
  for (int j = 1; j < n; ++j) {
    top = larger(top, load(z + j * chunk_samples));
  }
  return top;
}

/// The first index whose cumulative probability exceeds u (the last one if none does), and its logit.
template <bool Masked>
SHOAL_INLINE Int sample_index(const float* z, int n, Vec top, Vec sum, Vec u) noexcept {
  const Vec threshold = u * sum;
  Int choice = {};
  Vec cumulative = {};
  for (int j = 0; j + 1 < n; ++j) {
    cumulative += option_weight<Masked>(load(z + j * chunk_samples) - top);
    choice -= reinterpret_cast<Int>(cumulative <= threshold);
  }
  return choice;
}

SHOAL_INLINE Int greedy_index(const float* z, int n) noexcept {
  Vec best = load(z);
  Int choice = {};
  for (int j = 1; j < n; ++j) {
    const Vec x = load(z + j * chunk_samples);
    choice = x > best ? splat(j) : choice;
    best = larger(best, x);
  }
  return choice;
}

/// Chooses actions for the lanes at logits z; returns their log-probability. uniform, choice:
/// [num_actions][chunk_samples].
template <bool Masked>
SHOAL_INLINE Vec act_categorical(const Net& net, const float* z, bool greedy, const float* uniform,
                                 std::int32_t* choice) noexcept {
  Vec log_prob = {};
  for (int k = 0; k < net.num_actions; ++k) {
    const int n = net.nvec[k];
    const Vec top = highest(z, n);
    Vec sum = {};
    for (int j = 0; j < n; ++j) {
      sum += option_weight<Masked>(load(z + j * chunk_samples) - top);
    }
    const Int chosen =
        greedy ? greedy_index(z, n) : sample_index<Masked>(z, n, top, sum, load(uniform + k * chunk_samples));
    Vec logit = load(z);
    for (int j = 1; j < n; ++j) {
      logit = chosen == j ? load(z + j * chunk_samples) : logit;
    }
    store(choice + k * chunk_samples, chosen);
    log_prob += (logit - top) - logarithm(sum);
    z += n * chunk_samples;
  }
  return log_prob;
}

/// Chooses by the values at z: with probability epsilon any option that is allowed, else the one of the highest value.
/// One number below 1 decides both. Returns the choice's log-probability.
template <bool Masked>
SHOAL_INLINE Vec act_values(const Net& net, const float* z, Vec epsilon, Vec uniform, std::int32_t* choice) noexcept {
  const int n = net.num_outputs;
  Vec options = {};
  for (int j = 0; j < n; ++j) {
    options += Masked ? (load(z + j * chunk_samples) < 0.5F * never ? Vec{} : splat(1.0F)) : splat(1.0F);
  }
  const Vec share = uniform / (epsilon > 0.0F ? epsilon : splat(1.0F));
  const Vec place = lower_or_second(share * options, options - 0.5F);
  Int any = {};
  Vec seen = {};
  for (int j = 0; j + 1 < n; ++j) {
    seen += Masked ? (load(z + j * chunk_samples) < 0.5F * never ? Vec{} : splat(1.0F)) : splat(1.0F);
    any -= reinterpret_cast<Int>(seen <= place);
  }
  const Int best = greedy_index(z, n);
  const Int chosen = uniform < epsilon ? any : best;
  store(choice, chosen);
  const Vec greedy_part = chosen == best ? 1.0F - epsilon : Vec{};
  return logarithm(epsilon / options + greedy_part);
}

/// The highest of each lane's outputs into space.delta: what a Q-network says a state is worth.
static inline void highest_outputs(const Net& net, int width, const Workspace& space) noexcept {
  for (int s = 0; s < width; s += vec_lanes) {
    store(space.delta + s, highest(space.output + s, net.num_outputs));
  }
}

/// Log-probability of the given choices; per sub-action also what the gradient needs, and the summed entropy.
template <bool Masked>
SHOAL_INLINE Vec categorical_log_prob(const Net& net, const float* z, const std::int32_t* choice, Softmax* softmax,
                                      Vec* entropy, Vec& total_entropy) noexcept {
  Vec log_prob = {};
  total_entropy = Vec{};
  for (int k = 0; k < net.num_actions; ++k) {
    const int n = net.nvec[k];
    const Int chosen = load(choice + k * chunk_samples);
    const Vec top = highest(z, n);
    Vec sum = {};
    Vec weighted = {};
    Vec selected = {};
    for (int j = 0; j < n; ++j) {
      const Vec below = load(z + j * chunk_samples) - top;
      const Vec e = option_weight<Masked>(below);
      sum += e;
      weighted += e * below;
      selected = chosen == j ? below : selected;
    }
    const Vec log_sum = logarithm(sum);
    softmax[k] = {top, log_sum};
    entropy[k] = log_sum - weighted / sum;
    total_entropy += entropy[k];
    log_prob += selected - log_sum;
    z += n * chunk_samples;
  }
  return log_prob;
}

/// Gradient with respect to the logits of sum(pull * log_prob - entropy_pull * entropy):
/// pull * (1[j = a] - p_j) + entropy_pull * p_j * (ln p_j + H).
template <bool Masked>
SHOAL_INLINE void categorical_gradient(const Net& net, const float* z, const std::int32_t* choice,
                                       const Softmax* softmax, const Vec* entropy, Vec pull, Vec entropy_pull,
                                       float* dz) noexcept {
  for (int k = 0; k < net.num_actions; ++k) {
    const Int chosen = load(choice + k * chunk_samples);
    for (int j = 0; j < net.nvec[k]; ++j) {
      const Vec log_p = (load(z) - softmax[k].top) - softmax[k].log_sum;
      const Vec p = option_weight<Masked>(log_p);
      const Vec hit = chosen == j ? splat(1.0F) : Vec{};
      store(dz, pull * (hit - p) + entropy_pull * (p * (log_p + entropy[k])));
      z += chunk_samples;
      dz += chunk_samples;
    }
  }
}

/// Log-probability of actions under a diagonal Gaussian; actions and means are [dim][chunk_samples].
SHOAL_INLINE Vec gaussian_log_prob(const Net& net, const float* params, const float* mean,
                                   const float* action) noexcept {
  Vec log_prob = {};
  for (int d = 0; d < net.num_actions; ++d) {
    const float log_std = params[net.log_std + d];
    const Vec scaled =
        (load(action + d * chunk_samples) - load(mean + d * chunk_samples)) * exponential(splat(-log_std));
    log_prob -= 0.5F * (scaled * scaled) + (log_std + log_sqrt_two_pi);
  }
  return log_prob;
}

/// Gradients of sum(pull * log_prob - entropy_pull * entropy): with respect to the means into d_mean, with respect to
/// log_std added to sum_log_std [dim][pad_size]. The entropy is sum_d(1/2 + ln sqrt(2 pi) + log_std_d).
SHOAL_INLINE void gaussian_gradient(const Net& net, const float* params, const float* mean, const float* action,
                                    Vec pull, Vec entropy_pull, float* d_mean, float* sum_log_std) noexcept {
  for (int d = 0; d < net.num_actions; ++d) {
    const Vec inv_std = exponential(splat(-params[net.log_std + d]));
    const Vec scaled = (load(action + d * chunk_samples) - load(mean + d * chunk_samples)) * inv_std;
    store(d_mean + d * chunk_samples, pull * scaled * inv_std);
    store(sum_log_std + d * pad_size,
          load(sum_log_std + d * pad_size) + (pull * (scaled * scaled - 1.0F) - entropy_pull));
  }
}

/// Noise [size][chunk_samples] for `count` rows from `first` on: uniform, or normal.
static inline void draw_noise(const Noise& noise, std::ptrdiff_t first, int count, int size, bool normal,
                              float* to) noexcept {
  for (int s = 0; s < count; s += philox_rows) {
    const int rows = count - s < philox_rows ? count - s : philox_rows;
    for (int j = 0; j < size; j += 4) {
      PhiloxWords words;
      philox_words(noise.seed, noise.stream, static_cast<std::uint32_t>(j / 4), noise.rows + first + s,
                   noise.steps + first + s, rows, words);
      for (int w = 0; w < 4 && j + w < size; w += 2) {
        float* even = to + (j + w) * chunk_samples + s;
        for (int i = 0; i < rows; ++i) {
          float pair[2];
          if (normal) {
            philox_to_normal(words.word[w][i], words.word[w + 1][i], pair[0], pair[1]);
          } else {
            pair[0] = philox_to_uniform(words.word[w][i]);
            pair[1] = philox_to_uniform(words.word[w + 1][i]);
          }
          even[i] = pair[0];
          if (j + w + 1 < size) {
            even[chunk_samples + i] = pair[1];
          }
        }
      }
    }
  }
}

}  // namespace shoal::SHOAL_ISA
