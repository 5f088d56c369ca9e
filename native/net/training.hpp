// Towers forward with their activations kept, and backward from any gradient of their outputs.
#pragma once

#include "net/acting.hpp"

namespace shoal::SHOAL_ISA {

/// The kept activations of one chunk, and the buffers of `scratch` for the rest.
struct KeptChunk {
  Workspace actor;
  Workspace critic;
};

SHOAL_INLINE KeptChunk kept_chunk(const Net& net, float* kept, std::ptrdiff_t chunk,
                                  const Workspace& scratch) noexcept {
  KeptChunk here{scratch, scratch};
  here.actor.obs = kept + chunk * kept_floats(net);
  here.actor.hidden = here.actor.obs + padded(net.obs_size) * chunk_samples;
  here.critic.obs = here.actor.obs;
  here.critic.hidden = here.actor.hidden + (net.actor.depth - 1) * scratch.hidden_stride;
  return here;
}

/// A tower's outputs, feature-major, as rows.
static inline void scatter_outputs(const float* from, int many, int outputs, float* rows) noexcept {
  for (int s = 0; s < many; ++s) {
    for (int j = 0; j < outputs; ++j) {
      rows[static_cast<std::ptrdiff_t>(s) * outputs + j] = from[j * chunk_samples + s];
    }
  }
}

/// Rows of gradients into lanes; lanes beyond `many` get 0.
static inline void gather_slopes(const float* rows, int many, int width, int outputs, float* to) noexcept {
  for (int j = 0; j < outputs; ++j) {
    for (int s = 0; s < width; ++s) {
      to[j * chunk_samples + s] = s < many ? rows[static_cast<std::ptrdiff_t>(s) * outputs + j] : 0.0F;
    }
  }
}

/// Samples [first, first + count) of a minibatch; kept holds kept_floats(net) for each chunk of them.
static void forward_kept(const Net& net, const float* params, const float* obs, const std::int32_t* index,
                         std::ptrdiff_t first, std::ptrdiff_t count, const Workspace& scratch, float* kept,
                         float* logits, float* value) noexcept {
  for (std::ptrdiff_t done = 0; done < count; done += chunk_samples) {
    const std::ptrdiff_t at = first + done;
    const int many = chunk_size(count - done);
    const int width = whole_vectors(many);
    const KeptChunk here = kept_chunk(net, kept, done / chunk_samples, scratch);
    if (index == nullptr) {
      gather_obs(net, obs + at * net.obs_size, nullptr, many, width, here.actor.obs);
    } else {
      gather_obs(net, obs, index + at, many, width, here.actor.obs);
    }
    tower_forward(net, net.actor, params, width, here.actor);
    scatter_outputs(scratch.output, many, net.num_outputs, logits + at * net.num_outputs);
    if (net.critic.depth > 0) {
      tower_forward(net, net.critic, params, width, here.critic);
      scatter_outputs(scratch.output, many, 1, value + at);
    }
  }
}

/// Adds a chunk's gradients with respect to the observations as they were given: through the normalization, where it
/// did not clip.
static inline void scatter_obs_slopes(const Net& net, const float* obs, const float* slopes, int many,
                                      float* rows) noexcept {
  for (int s = 0; s < many; ++s) {
    for (int f = 0; f < net.obs_size; ++f) {
      float slope = slopes[f * chunk_samples + s];
      if (net.mean != nullptr) {
        const float x = obs[f * chunk_samples + s];
        slope = x > -net.clip && x < net.clip ? slope * net.inv_std[f] : 0.0F;
      }
      rows[static_cast<std::ptrdiff_t>(s) * net.obs_size + f] += slope;
    }
  }
}

/// One tower of one chunk: the parameters' gradients into `sums`, the observations' added to `obs_slopes` (unless
/// null).
static inline void tower_backward_kept(const Net& net, const Tower& tower, const float* params, const float* slopes,
                                       Start start, int many, Workspace space, float* sums,
                                       float* obs_slopes) noexcept {
  const int width = whole_vectors(many);
  const int outputs = tower.layers[tower.depth - 1].out;
  gather_slopes(slopes, many, width, outputs, space.delta);
  const float* const below = tower_backward(net, tower, params, many, width, space, sums, obs_slopes != nullptr, start);
  if (obs_slopes != nullptr) {
    scatter_obs_slopes(net, space.obs, below, many, obs_slopes);
  }
}

/// The parameters' gradients of samples [first, first + count) into grad [num_params], unless `sums` is null, from
/// those with respect to their logits and values; log_std, no output of a tower, gets 0. obs_slopes: [samples,
/// obs_size], or null.
static void backward_kept(const Net& net, const float* params, float* kept, std::ptrdiff_t first, std::ptrdiff_t count,
                          const float* logit_slopes, const float* value_slopes, const Workspace& scratch, float* sums,
                          float* grad, float* obs_slopes) noexcept {
  if (sums != nullptr) {
    clear_sums(net, count, sums);
  }
  for (std::ptrdiff_t done = 0; done < count; done += chunk_samples) {
    const std::ptrdiff_t at = first + done;
    const int many = chunk_size(count - done);
    const Start start = done == 0 ? Start::zero : Start::sum;
    const KeptChunk here = kept_chunk(net, kept, done / chunk_samples, scratch);
    float* const obs_rows = obs_slopes == nullptr ? nullptr : obs_slopes + at * net.obs_size;
    if (obs_rows != nullptr) {
      __builtin_memset(obs_rows, 0, static_cast<std::size_t>(many) * net.obs_size * sizeof(float));
    }
    tower_backward_kept(net, net.actor, params, logit_slopes + at * net.num_outputs, start, many, here.actor, sums,
                        obs_rows);
    if (net.critic.depth > 0) {
      tower_backward_kept(net, net.critic, params, value_slopes + at, start, many, here.critic, sums, obs_rows);
    }
  }
  if (sums != nullptr) {
    finish_net(net, sums, grad);
  }
}

}  // namespace shoal::SHOAL_ISA
