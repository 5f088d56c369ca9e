// Forward passes for acting: values, logits, and actions drawn from them, chunk by chunk.
#pragma once

#include <cstring>

#include "net/heads.hpp"
#include "net/tower.hpp"

namespace shoal::SHOAL_ISA {

SHOAL_INLINE int chunk_size(std::ptrdiff_t left) noexcept {
  return left < chunk_samples ? static_cast<int>(left) : chunk_samples;
}

static void forward(const Net& net, const float* params, const float* obs, std::ptrdiff_t count, const Workspace& space,
                    float* logits, float* value) noexcept {
  for (std::ptrdiff_t first = 0; first < count; first += chunk_samples) {
    const int many = chunk_size(count - first);
    const int width = whole_vectors(many);
    gather_obs(net, obs + first * net.obs_size, nullptr, many, width, space.obs);
    const bool values = net.head == Head::q_values;
    if (logits != nullptr || values) {
      tower_forward(net, net.actor, params, width, space);
    }
    if (logits != nullptr) {
      for (int s = 0; s < many; ++s) {
        for (int j = 0; j < net.num_outputs; ++j) {
          logits[(first + s) * net.num_outputs + j] = space.output[j * chunk_samples + s];
        }
      }
    }
    if (value != nullptr && values) {
      highest_outputs(net, width, space);
      std::memcpy(value + first, space.delta, static_cast<std::size_t>(many) * sizeof(float));
    } else if (value != nullptr) {
      tower_forward(net, net.critic, params, width, space);
      std::memcpy(value + first, space.output, static_cast<std::size_t>(many) * sizeof(float));
    }
  }
}

/// Means plus noise times the standard deviation; the noise lies in space.action and makes way for the actions.
SHOAL_INLINE void act_gaussian(const Net& net, const float* params, bool greedy, int width,
                               const Workspace& space) noexcept {
  for (int d = 0; d < net.num_actions; ++d) {
    const Vec std = exponential(splat(params[net.log_std + d]));
    for (int s = 0; s < width; s += vec_lanes) {
      const std::ptrdiff_t at = d * chunk_samples + s;
      const Vec mean = load(space.output + at);
      store(space.action + at, greedy ? mean : mean + std * load(space.action + at));
    }
  }
}

/// The lanes at s.
template <bool Masked>
SHOAL_INLINE Vec choose_lanes(const Net& net, const float* params, bool greedy, const float* epsilon, int s,
                              const Workspace& space) noexcept {
  if (net.head == Head::gaussian) {
    return gaussian_log_prob(net, params, space.output + s, space.action + s);
  }
  if (net.head == Head::q_values) {
    return act_values<Masked>(net, space.output + s, load(epsilon + s), load(space.action + s), space.choice + s);
  }
  return act_categorical<Masked>(net, space.output + s, greedy, space.action + s, space.choice + s);
}

/// One chunk's actions, among the options that `mask` (of its rows, or null) leaves: into space.choice or space.action,
/// log-probabilities into space.delta.
static inline void choose(const Net& net, const float* params, const Noise& noise, std::ptrdiff_t first, int many,
                          const std::uint8_t* mask, const Workspace& space) noexcept {
  const int width = whole_vectors(many);
  const bool gaussian = net.head == Head::gaussian;
  if (!noise.greedy) {
    draw_noise(noise, first, many, net.num_actions, gaussian, space.action);
  }
  if (gaussian) {
    act_gaussian(net, params, noise.greedy, width, space);
  }
  if (mask != nullptr) {
    mask_outputs(net, mask, nullptr, many, space.output);
  }
  float epsilon[chunk_samples] = {};
  if (noise.epsilon != nullptr && !noise.greedy) {
    std::memcpy(epsilon, noise.epsilon + first, static_cast<std::size_t>(many) * sizeof(float));
  }
  for (int s = 0; s < width; s += vec_lanes) {
    const Vec log_prob = mask == nullptr ? choose_lanes<false>(net, params, noise.greedy, epsilon, s, space)
                                         : choose_lanes<true>(net, params, noise.greedy, epsilon, s, space);
    store(space.delta + s, log_prob);
  }
}

/// One chunk's actions, log-probabilities and values into rows `first` on; the towers' input lies in space.obs.
static inline void act_chunk(const Net& net, const float* params, const Noise& noise, std::ptrdiff_t first, int many,
                             const std::uint8_t* mask, const Workspace& space, const ActOut& out) noexcept {
  const int width = whole_vectors(many);
  tower_forward(net, net.actor, params, width, space);
  choose(net, params, noise, first, many, mask == nullptr ? nullptr : mask + first * net.num_outputs, space);
  for (int k = 0; k < net.num_actions; ++k) {
    for (int s = 0; s < many; ++s) {
      const std::ptrdiff_t to = (first + s) * net.num_actions + k;
      if (net.head == Head::gaussian) {
        out.action[to] = space.action[k * chunk_samples + s];
      } else {
        out.choice[to] = space.choice[k * chunk_samples + s];
      }
    }
  }
  for (int s = 0; s < many; ++s) {
    out.log_prob[first + s] = space.delta[s];
  }
  const float* value = space.delta;
  if (net.head == Head::q_values) {
    highest_outputs(net, width, space);
  } else {
    tower_forward(net, net.critic, params, width, space);
    value = space.output;
  }
  std::memcpy(out.value + first, value, static_cast<std::size_t>(many) * sizeof(float));
}

static void act(const Net& net, const float* params, const float* obs, std::ptrdiff_t count, const Noise& noise,
                const std::uint8_t* mask, const Workspace& space, const ActOut& out) noexcept {
  for (std::ptrdiff_t first = 0; first < count; first += chunk_samples) {
    const int many = chunk_size(count - first);
    gather_obs(net, obs + first * net.obs_size, nullptr, many, whole_vectors(many), space.obs);
    act_chunk(net, params, noise, first, many, mask, space, out);
  }
}

}  // namespace shoal::SHOAL_ISA
