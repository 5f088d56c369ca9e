// PPO's clipped surrogate with a value loss and an entropy bonus (Schulman et al. 2017, arXiv 1707.06347).
#pragma once

#include "net/fused.hpp"

namespace shoal::SHOAL_ISA {

/// max(-A r, -A clip(r, 1 - c, 1 + c)) - ent_coef * entropy + vf_coef * value loss, with r = exp(log_prob - old
/// log_prob). The value loss is 0.5 (v - target)^2, or with clip_vloss the larger of that and the same with v kept
/// within c of the old value.
struct Ppo {
  static constexpr const char* name = "ppo_loss";

  struct Columns {
    static constexpr const char* names[] = {"log_prob", "value", "advantage", "target"};
    Vec log_prob;
    Vec value;
    Vec advantage;
    Vec target;
  };
  struct Settings {
    static constexpr const char* names[] = {"clip_coef", "clip_vloss", "ent_coef", "vf_coef", "norm_adv"};
    float clip_coef;
    float clip_vloss;
    float ent_coef;
    float vf_coef;
    float norm_adv;
  };
  struct Stats {
    static constexpr const char* names[] = {"policy", "value", "entropy", "approx_kl", "clip_fraction"};
    Vec policy;
    Vec value;
    Vec entropy;
    Vec approx_kl;
    Vec clip_fraction;
  };

  Settings set;
  Moments advantage{0.0F, 1.0F};

  SHOAL_INLINE_MEMBER explicit Ppo(const Settings& settings) noexcept : set(settings) {}

  [[nodiscard]] SHOAL_INLINE_MEMBER int least_samples() const noexcept { return set.norm_adv != 0.0F ? 2 : 1; }

  SHOAL_INLINE_MEMBER void prepare(const Minibatch& batch) noexcept {
    if (set.norm_adv != 0.0F) {
      advantage = column_moments(batch, place_of<Columns>("advantage"));
    }
  }

  SHOAL_INLINE_MEMBER ActorSlope actor(Vec weight, Vec log_prob, Vec entropy, const Columns& in,
                                       Stats& sums) const noexcept {
    const Vec gain = (in.advantage - advantage.mean) * advantage.inv_std;
    const Vec log_ratio = log_prob - in.log_prob;
    const Vec ratio = exponential(log_ratio);
    const Vec plain = -gain * ratio;
    const Vec clipped = -gain * clamp(ratio, 1.0F - set.clip_coef, 1.0F + set.clip_coef);
    const Vec away = ratio - 1.0F;
    const Vec distance = away < 0.0F ? -away : away;
    sums.policy += weight * larger(plain, clipped);
    sums.entropy += weight * entropy;
    sums.approx_kl += weight * (away - log_ratio);
    sums.clip_fraction += distance > set.clip_coef ? weight : Vec{};
    return {weight * (plain < clipped ? Vec{} : plain), -(set.ent_coef * weight)};
  }

  SHOAL_INLINE_MEMBER Vec critic(Vec weight, Vec value, const Columns& in, Stats& sums) const noexcept {
    Vec error = value - in.target;
    Vec slope = error;
    if (set.clip_vloss != 0.0F) {
      const Vec moved = value - in.value;
      const Vec near = in.value + clamp(moved, -set.clip_coef, set.clip_coef);
      const Vec near_error = near - in.target;
      const auto farther = error * error < near_error * near_error;
      const auto inside = (moved < 0.0F ? -moved : moved) <= set.clip_coef;
      slope = farther && !inside ? Vec{} : error;
      error = farther ? near_error : error;
    }
    sums.value += weight * (0.5F * (error * error));
    return set.vf_coef * weight * slope;
  }
};

}  // namespace shoal::SHOAL_ISA
