// Gradients of the PPO and A2C losses over a shard of a minibatch, chunk by chunk.
#pragma once

#include "net/acting.hpp"

namespace shoal::SHOAL_ISA {

/// What the loss needs of one chunk, gathered by index. Lanes beyond the last sample hold zeros, their weight too.
struct Targets {
  float weight[chunk_samples];
  float log_prob[chunk_samples];
  float value[chunk_samples];
  float advantage[chunk_samples];
  float target[chunk_samples];
};

/// Sums of one chunk's weighted statistics, lane by lane.
struct LaneSums {
  Vec policy_loss;
  Vec value_loss;
  Vec entropy;
  Vec approx_kl;
  Vec clip_fraction;
};

static inline void gather_targets(const Samples& samples, std::ptrdiff_t first, int count, int width, const Loss& loss,
                                  Targets& to) noexcept {
  for (int s = 0; s < count; ++s) {
    const auto from = static_cast<std::ptrdiff_t>(samples.index[first + s]);
    to.weight[s] = loss.weight;
    to.log_prob[s] = loss.ppo ? samples.log_prob[from] : 0.0F;
    to.value[s] = loss.ppo ? samples.value[from] : 0.0F;
    to.advantage[s] = (samples.advantage[from] - loss.advantage_mean) * loss.advantage_scale;
    to.target[s] = samples.target[from];
  }
  for (int s = count; s < width; ++s) {
    to.weight[s] = to.log_prob[s] = to.value[s] = to.advantage[s] = to.target[s] = 0.0F;
  }
}

/// Actions into lanes; returns the first sample whose choice is out of range, or -1.
static inline std::ptrdiff_t gather_actions(const Net& net, const Samples& samples, std::ptrdiff_t first, int count,
                                            int width, const Workspace& space) noexcept {
  std::ptrdiff_t bad = -1;
  for (int k = 0; k < net.num_actions; ++k) {
    for (int s = 0; s < width; ++s) {
      const std::ptrdiff_t from =
          s < count ? static_cast<std::ptrdiff_t>(samples.index[first + s]) * net.num_actions + k : -1;
      if (net.head == Head::gaussian) {
        space.action[k * chunk_samples + s] = from < 0 ? 0.0F : samples.action[from];
        continue;
      }
      const std::int64_t choice = from < 0 ? 0 : samples.choice[from];
      if (bad < 0 && (choice < 0 || choice >= net.nvec[k])) {
        bad = first + s;
      }
      space.choice[k * chunk_samples + s] = static_cast<std::int32_t>(choice);
    }
  }
  return bad;
}

/// Adds the policy's loss of the lanes at s; returns its derivative with respect to their log-probability.
/// PPO (Schulman et al. 2017): max(-A r, -A clip(r, 1 - c, 1 + c)) with r = exp(log_prob - old). A2C: -A log_prob.
SHOAL_INLINE Vec policy_pull(const Loss& loss, const Targets& in, int s, Vec log_prob, LaneSums& sums) noexcept {
  const Vec weight = load(in.weight + s);
  const Vec advantage = load(in.advantage + s);
  if (!loss.ppo) {
    sums.policy_loss -= weight * (advantage * log_prob);
    return -weight * advantage;
  }
  const Vec log_ratio = log_prob - load(in.log_prob + s);
  const Vec ratio = exponential(log_ratio);
  const Vec plain = -advantage * ratio;
  const Vec clipped = -advantage * clamp(ratio, 1.0F - loss.clip_coef, 1.0F + loss.clip_coef);
  const Vec away = ratio - 1.0F;
  const Vec distance = away < 0.0F ? -away : away;
  sums.policy_loss += weight * larger(plain, clipped);
  sums.approx_kl += weight * (away - log_ratio);
  sums.clip_fraction += distance > loss.clip_coef ? weight : Vec{};
  return weight * (plain < clipped ? Vec{} : plain);
}

/// The actor's loss: gradients with respect to its outputs into space.delta.
SHOAL_INLINE void actor_loss(const Net& net, const float* params, const Loss& loss, const Targets& in, int width,
                             const Workspace& space, float* sum_log_std, LaneSums& sums) noexcept {
  Softmax softmax[max_actions];
  Vec entropies[max_actions];
  for (int s = 0; s < width; s += vec_lanes) {
    const Vec weight = load(in.weight + s);
    const Vec entropy_pull = loss.ent_coef * weight;
    Vec entropy = {};
    if (net.head == Head::gaussian) {
      for (int d = 0; d < net.num_actions; ++d) {
        entropy += params[net.log_std + d] + (0.5F + log_sqrt_two_pi);
      }
      const Vec log_prob = gaussian_log_prob(net, params, space.output + s, space.action + s);
      const Vec pull = policy_pull(loss, in, s, log_prob, sums);
      gaussian_gradient(net, params, space.output + s, space.action + s, pull, entropy_pull, space.delta + s,
                        sum_log_std);
    } else {
      const Vec log_prob = categorical_log_prob(net, space.output + s, space.choice + s, softmax, entropies, entropy);
      const Vec pull = policy_pull(loss, in, s, log_prob, sums);
      categorical_gradient(net, space.output + s, space.choice + s, softmax, entropies, pull, entropy_pull,
                           space.delta + s);
    }
    sums.entropy += weight * entropy;
  }
}

/// The critic's loss, 0.5 (v - target)^2 or the larger of that and the same with v clipped around the old value:
/// its gradient, times vf_coef, into space.delta.
SHOAL_INLINE void critic_loss(const Loss& loss, const Targets& in, int width, const Workspace& space,
                              LaneSums& sums) noexcept {
  for (int s = 0; s < width; s += vec_lanes) {
    const Vec weight = load(in.weight + s);
    const Vec target = load(in.target + s);
    const Vec value = load(space.output + s);
    Vec error = value - target;
    Vec pull = error;
    if (loss.clip_vloss) {
      const Vec old = load(in.value + s);
      const Vec near = old + clamp(value - old, -loss.clip_coef, loss.clip_coef);
      const Vec near_error = near - target;
      const auto farther = error * error < near_error * near_error;
      const Vec moved = value - old;
      const auto inside = (moved < 0.0F ? -moved : moved) <= loss.clip_coef;
      pull = farther && !inside ? Vec{} : error;
      error = farther ? near_error : error;
    }
    sums.value_loss += weight * (0.5F * (error * error));
    store(space.delta + s, loss.vf_coef * weight * pull);
  }
}

static inline void add_sums(const LaneSums& from, LossSums& to) noexcept {
  to.policy_loss += lane_total(from.policy_loss);
  to.value_loss += lane_total(from.value_loss);
  to.entropy += lane_total(from.entropy);
  to.approx_kl += lane_total(from.approx_kl);
  to.clip_fraction += lane_total(from.clip_fraction);
}

static inline void finish_tower(const Tower& tower, const float* sums, float* grad) noexcept {
  for (int l = 0; l < tower.depth; ++l) {
    finish_gradient(tower.layers[l], sums, grad);
  }
}

static void gradient(const Net& net, const float* params, const Samples& samples, std::ptrdiff_t first,
                     std::ptrdiff_t count, const Loss& loss, const Workspace& space, float* sums, float* grad,
                     LossSums& totals) noexcept {
  totals = LossSums{0.0, 0.0, 0.0, 0.0, 0.0, -1};
  for (std::ptrdiff_t i = 0; i < net.num_sums; i += vec_lanes) {
    store(sums + i, Vec{});
  }
  Targets targets;
  for (std::ptrdiff_t at = first; at < first + count; at += chunk_samples) {
    const int many = chunk_size(first + count - at);
    const int width = whole_vectors(many);
    LaneSums chunk = {};
    gather_obs(net, samples.obs, samples.index + at, many, width, space.obs);
    gather_targets(samples, at, many, width, loss, targets);
    const std::ptrdiff_t bad = gather_actions(net, samples, at, many, width, space);
    totals.bad = totals.bad < 0 ? bad : totals.bad;
    tower_forward(net, net.actor, params, width, space);
    actor_loss(net, params, loss, targets, width, space, sums + net.sum_log_std, chunk);
    tower_backward(net, net.actor, params, many, width, space, sums);
    tower_forward(net, net.critic, params, width, space);
    critic_loss(loss, targets, width, space, chunk);
    tower_backward(net, net.critic, params, many, width, space, sums);
    add_sums(chunk, totals);
  }
  finish_tower(net.actor, sums, grad);
  finish_tower(net.critic, sums, grad);
  if (net.head == Head::gaussian) {
    sum_lanes(sums + net.sum_log_std, net.num_actions, grad + net.log_std);
  }
}

}  // namespace shoal::SHOAL_ISA
