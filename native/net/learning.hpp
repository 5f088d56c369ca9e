// Gradients of a fused loss over a shard of a minibatch, chunk by chunk.
#pragma once

#include <new>

#include "net/acting.hpp"
#include "net/fused.hpp"

namespace shoal::SHOAL_ISA {

/// One chunk's samples. Lanes beyond the last sample repeat it, with weight 0.
struct ChunkSamples {
  std::int32_t index[chunk_samples];
  float weight[chunk_samples];
  float column[max_loss_members][chunk_samples];
};

/// A sample's weight in a mean over `count` of them.
SHOAL_INLINE float mean_weight(std::ptrdiff_t count) noexcept {
  return static_cast<float>(1.0 / static_cast<double>(count));
}

static inline void gather_samples(const Minibatch& batch, int num_columns, std::ptrdiff_t first, int count, int width,
                                  float weight, ChunkSamples& to) noexcept {
  for (int s = 0; s < width; ++s) {
    to.index[s] = batch.index[first + (s < count ? s : count - 1)];
    to.weight[s] = s < count ? weight : 0.0F;
  }
  for (int c = 0; c < num_columns; ++c) {
    for (int s = 0; s < width; ++s) {
      to.column[c][s] = batch.columns[c][to.index[s]];
    }
  }
}

/// Asks for samples that the next chunk gathers: their places are random, and memory is far.
static inline void prefetch_samples(const Net& net, const Minibatch& batch, int num_columns, std::ptrdiff_t first,
                                    int count) noexcept {
  for (std::ptrdiff_t s = first; s < first + count; ++s) {
    const std::ptrdiff_t at = batch.index[s];
    __builtin_prefetch(batch.obs + at * net.obs_size, 0, 2);
    if (batch.choice != nullptr) {
      __builtin_prefetch(batch.choice + at * net.num_actions, 0, 2);
    } else {
      __builtin_prefetch(batch.action + at * net.num_actions, 0, 2);
    }
    for (int c = 0; c < num_columns; ++c) {
      __builtin_prefetch(batch.columns[c] + at, 0, 2);
    }
  }
}

/// Actions into lanes.
static inline void gather_actions(const Net& net, const Minibatch& batch, const ChunkSamples& samples, int width,
                                  const Workspace& space) noexcept {
  for (int k = 0; k < net.num_actions; ++k) {
    for (int s = 0; s < width; ++s) {
      const std::ptrdiff_t from = static_cast<std::ptrdiff_t>(samples.index[s]) * net.num_actions + k;
      if (net.head == Head::gaussian) {
        space.action[k * chunk_samples + s] = batch.action[from];
      } else {
        space.choice[k * chunk_samples + s] = static_cast<std::int32_t>(batch.choice[from]);
      }
    }
  }
}

/// A loss's columns in the lanes at s.
template <FusedLoss L>
SHOAL_INLINE typename L::Columns columns_at(const ChunkSamples& samples, int s) noexcept {
  constexpr int many = size_of_record<typename L::Columns>;
  Vec lanes[many];
  for (int c = 0; c < many; ++c) {
    lanes[c] = load(samples.column[c] + s);
  }
  typename L::Columns columns;
  __builtin_memcpy(&columns, lanes, sizeof(columns));
  return columns;
}

/// The actor's loss: gradients with respect to its outputs into space.delta. Masked: mask_outputs has been there.
template <bool Masked, FusedLoss L>
SHOAL_INLINE void actor_loss(const Net& net, const float* params, const L& loss, const ChunkSamples& samples, int width,
                             const Workspace& space, float* sum_log_std, typename L::Stats& sums) noexcept {
  Softmax softmax[max_actions];
  Vec entropies[max_actions];
  for (int s = 0; s < width; s += vec_lanes) {
    const Vec weight = load(samples.weight + s);
    const typename L::Columns columns = columns_at<L>(samples, s);
    Vec entropy = {};
    if (net.head == Head::gaussian) {
      for (int d = 0; d < net.num_actions; ++d) {
        entropy += params[net.log_std + d] + (0.5F + log_sqrt_two_pi);
      }
      const Vec log_prob = gaussian_log_prob(net, params, space.output + s, space.action + s);
      const ActorSlope slope = loss.actor(weight, log_prob, entropy, columns, sums);
      gaussian_gradient(net, params, space.output + s, space.action + s, slope.log_prob, -slope.entropy,
                        space.delta + s, sum_log_std);
    } else {
      const Vec log_prob =
          categorical_log_prob<Masked>(net, space.output + s, space.choice + s, softmax, entropies, entropy);
      const ActorSlope slope = loss.actor(weight, log_prob, entropy, columns, sums);
      categorical_gradient<Masked>(net, space.output + s, space.choice + s, softmax, entropies, slope.log_prob,
                                   -slope.entropy, space.delta + s);
    }
  }
}

/// The critic's loss: gradients with respect to the values into space.delta.
template <FusedLoss L>
SHOAL_INLINE void critic_loss(const L& loss, const ChunkSamples& samples, int width, const Workspace& space,
                              typename L::Stats& sums) noexcept {
  for (int s = 0; s < width; s += vec_lanes) {
    const Vec slope = loss.critic(load(samples.weight + s), load(space.output + s), columns_at<L>(samples, s), sums);
    store(space.delta + s, slope);
  }
}

/// A Q-network's loss: gradients with respect to its outputs into space.delta, each sample's error into the
/// minibatch's.
template <FusedLoss L>
SHOAL_INLINE void values_loss(const Net& net, const Minibatch& batch, const L& loss, const ChunkSamples& samples,
                              int many, int width, const Workspace& space, typename L::Stats& sums) noexcept {
  float errors[chunk_samples];
  for (int s = 0; s < width; s += vec_lanes) {
    const Int chosen = load(space.choice + s);
    Vec value = load(space.output + s);
    for (int j = 1; j < net.num_outputs; ++j) {
      value = chosen == j ? load(space.output + j * chunk_samples + s) : value;
    }
    const ValueSlope slope = loss.chosen(load(samples.weight + s), value, columns_at<L>(samples, s), sums);
    store(errors + s, slope.error);
    for (int j = 0; j < net.num_outputs; ++j) {
      store(space.delta + j * chunk_samples + s, chosen == j ? slope.value : Vec{});
    }
  }
  // A sample may be in the minibatch twice, and then in the chunks of two threads: both store the same number.
  for (int s = 0; batch.error != nullptr && s < many; ++s) {
    __atomic_store(batch.error + samples.index[s], errors + s, __ATOMIC_RELAXED);
  }
}

template <FusedLoss L>
SHOAL_INLINE void add_sums(const typename L::Stats& from, LossSums& to) noexcept {
  constexpr int many = size_of_record<typename L::Stats>;
  Vec lanes[many];
  __builtin_memcpy(lanes, &from, sizeof(from));
  for (int i = 0; i < many; ++i) {
    to.stats[i] += lane_total(lanes[i]);
  }
}

/// The actor's and the critic's part of one chunk; the actor's outputs lie in space.output.
template <FusedLoss L>
SHOAL_INLINE void policy_gradient(const Net& net, const float* params, const Minibatch& batch, const L& loss,
                                  const ChunkSamples& samples, int many, int width, const Workspace& space, float* sums,
                                  typename L::Stats& stats, float* input_slopes, Start start) noexcept {
  const bool input_wanted = input_slopes != nullptr;
  if (batch.mask == nullptr) {
    actor_loss<false>(net, params, loss, samples, width, space, sums + net.sum_log_std, stats);
  } else {
    mask_outputs(net, batch.mask, samples.index, width, space.output);
    actor_loss<true>(net, params, loss, samples, width, space, sums + net.sum_log_std, stats);
  }
  const float* below = tower_backward(net, net.actor, params, many, width, space, sums, input_wanted, start);
  if (input_wanted) {
    add_slopes<false>(net, width, below, input_slopes);
  }
  tower_forward(net, net.critic, params, width, space);
  critic_loss(loss, samples, width, space, stats);
  below = tower_backward(net, net.critic, params, many, width, space, sums, input_wanted, start);
  if (input_wanted) {
    add_slopes<true>(net, width, below, input_slopes);
  }
}

/// One chunk of a minibatch: its loss and its gradients, added to `stats` and `sums`. The towers' input lies in
/// space.obs; the gradient with respect to it goes to input_slopes [obs_size][chunk_samples], which may be null.
template <FusedLoss L>
SHOAL_INLINE void chunk_gradient(const Net& net, const float* params, const Minibatch& batch, const L& loss,
                                 const ChunkSamples& samples, int many, int width, const Workspace& space, float* sums,
                                 typename L::Stats& stats, float* input_slopes, Start start = Start::sum) noexcept {
  gather_actions(net, batch, samples, width, space);
  tower_forward(net, net.actor, params, width, space);
  if constexpr (HasChosen<L>) {
    values_loss(net, batch, loss, samples, many, width, space, stats);
    tower_backward(net, net.actor, params, many, width, space, sums, false, start);
  } else {
    policy_gradient(net, params, batch, loss, samples, many, width, space, sums, stats, input_slopes, start);
  }
}
template <FusedLoss L>
static void gradient(const Net& net, const float* params, const Minibatch& batch, std::ptrdiff_t first,
                     std::ptrdiff_t count, const PreparedLoss& prepared, const Workspace& space, float* sums,
                     float* grad, LossSums& totals) noexcept {
  const L loss = *std::launder(reinterpret_cast<const L*>(prepared.bytes));
  totals = LossSums{};
  clear_sums(net, count, sums);
  ChunkSamples samples;
  for (std::ptrdiff_t at = first; at < first + count; at += chunk_samples) {
    const int many = chunk_size(first + count - at);
    const int width = whole_vectors(many);
    typename L::Stats chunk{};
    prefetch_samples(net, batch, size_of_record<typename L::Columns>, at + many, chunk_size(first + count - at - many));
    gather_samples(batch, size_of_record<typename L::Columns>, at, many, width, mean_weight(batch.count), samples);
    gather_obs(net, batch.obs, samples.index, width, width, space.obs);
    chunk_gradient(net, params, batch, loss, samples, many, width, space, sums, chunk, nullptr,
                   at == first ? Start::zero : Start::sum);
    add_sums<L>(chunk, totals);
  }
  finish_net(net, sums, grad);
}

/// A loss's settings in the order of its names, as the loss takes them.
template <FusedLoss L>
SHOAL_INLINE L make_loss(const float* settings) noexcept {
  typename L::Settings given;
  __builtin_memcpy(&given, settings, sizeof(given));
  return L{given};
}

template <FusedLoss L>
static int least_samples(const float* settings) noexcept {
  if constexpr (HasLeastSamples<L>) {
    return make_loss<L>(settings).least_samples();
  } else {
    return 1;
  }
}

template <FusedLoss L>
static void prepare(const float* settings, const Minibatch& batch, PreparedLoss& to) noexcept {
  static_assert(sizeof(L) <= sizeof(to.bytes) && alignof(L) <= alignof(PreparedLoss));
  L* const loss = new (to.bytes) L(make_loss<L>(settings));
  if constexpr (HasPrepare<L>) {
    loss->prepare(batch);
  }
}

/// What the table of kernels says of one loss.
template <FusedLoss L>
constexpr LossKernels loss_kernels() noexcept {
  using Columns = typename L::Columns;
  using Settings = typename L::Settings;
  using Stats = typename L::Stats;
  static_assert(size_of_record<Columns> <= max_loss_members && size_of_record<Settings> <= max_loss_members &&
                size_of_record<Stats> <= max_loss_members);
  return {L::name,
          Columns::names,
          size_of_record<Columns>,
          Settings::names,
          size_of_record<Settings>,
          Stats::names,
          size_of_record<Stats>,
          HasChosen<L>,
          least_samples<L>,
          prepare<L>,
          gradient<L>};
}

}  // namespace shoal::SHOAL_ISA
