// Equations that run backwards over a rollout: advantages and returns over slabs [M, T, B] of a population of M agents.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shoal {

/// A rollout of one agent: arrays [num_steps, num_rows] without gaps.
struct ScanInput {
  std::ptrdiff_t num_steps;
  std::ptrdiff_t num_rows;
  const float* reward;
  const float* value;  ///< only gae and vtrace read it
  const float* next_value;
  const std::uint8_t* terminated;
  const std::uint8_t* ended;  ///< terminated or truncated
  const std::uint8_t* valid;

  /// The same arrays of the agent `agents` further on.
  [[nodiscard]] ScanInput agent(std::ptrdiff_t agents) const noexcept {
    const std::ptrdiff_t skip = agents * num_steps * num_rows;
    return {num_steps,         num_rows,          reward + skip, value + skip,
            next_value + skip, terminated + skip, ended + skip,  valid + skip};
  }
};

/// Generalised advantage estimation (Schulman et al. 2016), accumulated in float32:
/// delta_t = r_t + gamma * next_value_t * (1 - terminated_t) - value_t;
/// advantage_t = delta_t + gamma * gae_lambda * (1 - ended_t) * advantage_{t+1}.
/// An invalid step gets 0 and passes what it carries on unchanged. `carry` holds num_rows floats of scratch.
inline void gae(const ScanInput& in, double gamma, double gae_lambda, float* carry, float* advantage) noexcept {
  const auto discount = static_cast<float>(gamma);
  const auto decay = static_cast<float>(gamma * gae_lambda);
  for (std::ptrdiff_t b = 0; b < in.num_rows; ++b) {
    carry[b] = 0.0F;
  }
  for (std::ptrdiff_t t = in.num_steps - 1; t >= 0; --t) {
    const std::ptrdiff_t at = t * in.num_rows;
    for (std::ptrdiff_t b = 0; b < in.num_rows; ++b) {
      const float next = in.terminated[at + b] != 0 ? 0.0F : in.next_value[at + b];
      const float later = in.ended[at + b] != 0 ? 0.0F : carry[b];
      const float sum = in.reward[at + b] + discount * next - in.value[at + b] + decay * later;
      const bool valid = in.valid[at + b] != 0;
      carry[b] = valid ? sum : carry[b];
      advantage[at + b] = valid ? sum : 0.0F;
    }
  }
}

/// One n-step return by its definition: at most n valid rewards from step t of row b on.
inline float n_step_at(const ScanInput& in, float discount, std::int64_t n, std::ptrdiff_t t,
                       std::ptrdiff_t b) noexcept {
  float sum = 0.0F;
  float factor = 1.0F;
  std::ptrdiff_t last = -1;
  std::int64_t taken = 0;
  for (std::ptrdiff_t k = t; k < in.num_steps && taken < n; ++k) {
    const std::ptrdiff_t at = k * in.num_rows + b;
    if (in.valid[at] == 0) {
      continue;
    }
    sum += factor * in.reward[at];
    factor *= discount;
    last = at;
    ++taken;
    if (in.ended[at] != 0) {
      break;
    }
  }
  return in.terminated[last] != 0 ? sum : sum + factor * in.next_value[last];
}

/// Returns that bootstrap only where the slab or an episode ends: target_t = r_t + gamma * target_{t+1}.
inline void full_return(const ScanInput& in, float discount, float* target) noexcept {
  for (std::ptrdiff_t b = 0; b < in.num_rows; ++b) {
    float carry = 0.0F;
    bool bootstrap = true;
    for (std::ptrdiff_t t = in.num_steps - 1; t >= 0; --t) {
      const std::ptrdiff_t at = t * in.num_rows + b;
      if (in.valid[at] == 0) {
        target[at] = 0.0F;
        continue;
      }
      float next = bootstrap || in.ended[at] != 0 ? in.next_value[at] : carry;
      next = in.terminated[at] != 0 ? 0.0F : next;
      carry = in.reward[at] + discount * next;
      bootstrap = false;
      target[at] = carry;
    }
  }
}

/// n-step returns (Sutton and Barto, chapter 7): sum_{k<m} gamma^k r_{t+k} + gamma^m * next_value_{t+m-1}, where m is
/// n, or less where the episode is cut (a terminated one adds no value) or the slab ends. An invalid step gets 0.
inline void n_step(const ScanInput& in, double gamma, std::int64_t n, float* target) noexcept {
  const auto discount = static_cast<float>(gamma);
  if (n >= in.num_steps) {
    full_return(in, discount, target);
    return;
  }
  for (std::ptrdiff_t t = 0; t < in.num_steps; ++t) {
    for (std::ptrdiff_t b = 0; b < in.num_rows; ++b) {
      const std::ptrdiff_t at = t * in.num_rows + b;
      target[at] = in.valid[at] != 0 ? n_step_at(in, discount, n, t, b) : 0.0F;
    }
  }
}

/// Q(lambda) after Peng and Williams, by the values of greedy actions, not cut where an action explored:
/// target_t = r_t + gamma * ((1 - lambda) * next_value_t + lambda * target_{t+1}), with next_value_t in the place of
/// target_{t+1} where the slab or an episode ends, and r_t alone where it terminated. An invalid step gets 0 and passes
/// what it carries on unchanged. `carry` holds num_rows floats of scratch, `going` num_rows flags.
inline void q_lambda(const ScanInput& in, double gamma, double lambda, float* carry, std::uint8_t* going,
                     float* target) noexcept {
  const auto discount = static_cast<float>(gamma);
  const auto weight = static_cast<float>(lambda);
  for (std::ptrdiff_t b = 0; b < in.num_rows; ++b) {
    carry[b] = 0.0F;
    going[b] = 0;
  }
  for (std::ptrdiff_t t = in.num_steps - 1; t >= 0; --t) {
    const std::ptrdiff_t at = t * in.num_rows;
    for (std::ptrdiff_t b = 0; b < in.num_rows; ++b) {
      const float value = in.next_value[at + b];
      const float later = going[b] == 0 || in.ended[at + b] != 0 ? value : carry[b];
      const float next = value + weight * (later - value);
      const float sum = in.terminated[at + b] != 0 ? in.reward[at + b] : in.reward[at + b] + discount * next;
      const bool valid = in.valid[at + b] != 0;
      carry[b] = valid ? sum : carry[b];
      going[b] = valid ? 1 : going[b];
      target[at + b] = valid ? sum : 0.0F;
    }
  }
}

/// How much the target policy would do of what the behaviour policy did, [num_steps, num_rows] each.
struct TraceWeights {
  const float* rho;  ///< of a step's own error
  const float* c;    ///< of the errors after it

  /// The same arrays of the agent `skip` numbers further on.
  [[nodiscard]] TraceWeights shifted(std::ptrdiff_t skip) const noexcept { return {rho + skip, c + skip}; }
};

/// What a row of `vtrace` carries from a step to the one before it.
struct TraceCarry {
  float error;         ///< target - value of the step after
  float value;         ///< of the step after, as the learner has it
  std::uint8_t going;  ///< whether there is a step after
};

/// V-trace (Espeholt et al. 2018, eq. 1), accumulated in float32; v_t are the learner's values:
/// error_t = rho_t * (r_t + gamma * v_{t+1} - v_t) + gamma * lambda * c_t * error_{t+1}; target_t = v_t + error_t;
/// advantage_t = rho_t * (r_t + gamma * (v_{t+1} + lambda * error_{t+1}) - v_t).
/// Where the slab or an episode ends, next_value_t stands in the place of v_{t+1} and no error follows; where it
/// terminated, 0. An invalid step gets 0 and passes what it carries on unchanged. `carry` holds num_rows of scratch.
inline void vtrace(const ScanInput& in, const TraceWeights& weights, double gamma, double lambda, TraceCarry* carry,
                   float* advantage, float* error) noexcept {
  const auto discount = static_cast<float>(gamma);
  const auto decay = static_cast<float>(lambda);
  for (std::ptrdiff_t b = 0; b < in.num_rows; ++b) {
    carry[b] = {};
  }
  for (std::ptrdiff_t t = in.num_steps - 1; t >= 0; --t) {
    for (std::ptrdiff_t b = 0; b < in.num_rows; ++b) {
      const std::ptrdiff_t at = t * in.num_rows + b;
      if (in.valid[at] == 0) {
        advantage[at] = 0.0F;
        error[at] = 0.0F;
        continue;
      }
      const bool cut = in.ended[at] != 0 || carry[b].going == 0;
      const float follows = cut ? in.next_value[at] : carry[b].value;
      const float next = in.terminated[at] != 0 ? 0.0F : follows;
      const float later = cut ? 0.0F : decay * carry[b].error;
      const float own = in.reward[at] + discount * next - in.value[at];
      error[at] = weights.rho[at] * own + discount * weights.c[at] * later;
      advantage[at] = weights.rho[at] * (own + discount * later);
      carry[b] = {error[at], in.value[at], 1};
    }
  }
}

}  // namespace shoal
