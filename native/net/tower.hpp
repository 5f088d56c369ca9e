// One tower of the policy over a chunk of samples: gather observations, run the layers forward, run them backward.
#pragma once

#include "net/dense.hpp"
#include "net/functions.hpp"

namespace shoal::SHOAL_ISA {

/// `count` samples in whole vectors.
SHOAL_INLINE int whole_vectors(int count) noexcept { return (count + vec_lanes - 1) / vec_lanes * vec_lanes; }

/// Observations [row][feature] into feature-major lanes, normalized; lanes beyond `count` get 0. Without an index: rows
/// 0 to count - 1.
static inline void gather_obs(const Net& net, const float* obs, const std::int32_t* index, int count, int width,
                              float* to) noexcept {
  const int size = net.obs_size;
  for (int s = 0; s < count; ++s) {
    const float* row = obs + (index == nullptr ? s : static_cast<std::ptrdiff_t>(index[s])) * size;
    for (int f = 0; f < size; ++f) {
      to[f * chunk_samples + s] = row[f];
    }
  }
  for (int f = 0; f < size; ++f) {
    float* lanes = to + f * chunk_samples;
    for (int s = count; s < width; ++s) {
      lanes[s] = 0.0F;
    }
    if (net.mean != nullptr) {
      for (int s = 0; s < width; s += vec_lanes) {
        store(lanes + s, clamp((load(lanes + s) - net.mean[f]) * net.inv_std[f], -net.clip, net.clip));
      }
    }
  }
}

/// The hidden activation, of a layer's output.
template <bool Tanh>
struct Activate {
  SHOAL_INLINE_MEMBER Vec operator()(Vec x, const float* /*place*/) const noexcept {
    return Tanh ? hyperbolic_tangent(x) : larger(x, Vec{});
  }
};

/// A gradient with respect to the activation's output y becomes that with respect to its input, times the slope: 1 -
/// y^2, or 1 where y > 0.
template <bool Tanh>
struct ThroughActivation {
  const float* y;
  const float* dx;  ///< where the product puts the gradient, in the order of y

  SHOAL_INLINE_MEMBER Vec operator()(Vec d, const float* place) const noexcept {
    const Vec a = load(y + (place - dx));
    return Tanh ? d - d * (a * a) : (a > 0.0F ? d : Vec{});
  }
};

/// All layers of a tower; the last one's output goes to space.output.
static inline void tower_forward(const Net& net, const Tower& tower, const float* params, int width,
                                 const Workspace& space) noexcept {
  const float* x = space.obs;
  for (int l = 0; l + 1 < tower.depth; ++l) {
    float* y = space.hidden + l * space.hidden_stride;
    if (net.tanh) {
      dense_forward(tower.layers[l], params, width, x, y, Activate<true>{});
    } else {
      dense_forward(tower.layers[l], params, width, x, y, Activate<false>{});
    }
    x = y;
  }
  dense_forward(tower.layers[tower.depth - 1], params, width, x, space.output);
}

/// The parameters' gradients, from those with respect to the tower's output in space.delta, unless `sums` is null; a
/// first chunk may start from zero accumulators. Returns those with respect to its input if they are wanted,
/// feature-major.
static inline const float* tower_backward(const Net& net, const Tower& tower, const float* params, int count, int width,
                                          Workspace space, float* sums, bool input_wanted = false,
                                          Start start = Start::sum) noexcept {
  for (int l = tower.depth - 1; l >= 0; --l) {
    const Dense& layer = tower.layers[l];
    const float* x = l > 0 ? space.hidden + (l - 1) * space.hidden_stride : space.obs;
    if (sums != nullptr) {
      dense_gradient(layer, count, width, x, space.delta, space.transposed, sums, start);
    }
    if (l == 0 && !input_wanted) {
      break;
    }
    if (l == 0) {
      dense_backward(layer, params, width, space.delta, space.delta_next);
    } else if (net.tanh) {
      dense_backward(layer, params, width, space.delta, space.delta_next, ThroughActivation<true>{x, space.delta_next});
    } else {
      dense_backward(layer, params, width, space.delta, space.delta_next,
                     ThroughActivation<false>{x, space.delta_next});
    }
    float* const below = space.delta_next;
    space.delta_next = space.delta;
    space.delta = below;
  }
  return space.delta;
}

/// The first tower's gradients with respect to the input, or the second tower's added to them.
template <bool Add>
SHOAL_INLINE void add_slopes(const Net& net, int width, const float* from, float* to) noexcept {
  for (int f = 0; f < net.obs_size; ++f) {
    for (int s = 0; s < width; s += vec_lanes) {
      const std::ptrdiff_t at = f * chunk_samples + s;
      store(to + at, Add ? load(to + at) + load(from + at) : load(from + at));
    }
  }
}

/// What a first chunk that starts from zero does not set: log_std's accumulators, and all where there is no chunk.
static inline void clear_sums(const Net& net, std::ptrdiff_t count, float* sums) noexcept {
  for (std::ptrdiff_t i = count > 0 ? net.sum_log_std : 0; i < net.num_sums; i += vec_lanes) {
    store(sums + i, Vec{});
  }
}

static inline void finish_tower(const Tower& tower, const float* sums, float* grad) noexcept {
  for (int l = 0; l < tower.depth; ++l) {
    finish_gradient(tower.layers[l], sums, grad);
  }
}

/// A shard's accumulators as gradients in the order of the parameters.
static inline void finish_net(const Net& net, const float* sums, float* grad) noexcept {
  finish_tower(net.actor, sums, grad);
  finish_tower(net.critic, sums, grad);
  if (net.head == Head::gaussian) {
    sum_lanes(sums + net.sum_log_std, net.num_actions, grad + net.log_std);
  }
}

}  // namespace shoal::SHOAL_ISA
