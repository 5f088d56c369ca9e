// The advantage actor-critic's loss (Mnih et al. 2016, arXiv 1602.01783; synchronous as in PAAC, arXiv 1705.04862).
#pragma once

#include "net/fused.hpp"

namespace shoal::SHOAL_ISA {

/// -A log_prob - ent_coef * entropy + vf_coef * 0.5 (v - target)^2.
struct A2c {
  static constexpr const char* name = "a2c_loss";

  struct Columns {
    static constexpr const char* names[] = {"advantage", "target"};
    Vec advantage;
    Vec target;
  };
  struct Settings {
    static constexpr const char* names[] = {"ent_coef", "vf_coef", "norm_adv"};
    float ent_coef;
    float vf_coef;
    float norm_adv;
  };
  struct Stats {
    static constexpr const char* names[] = {"policy", "value", "entropy"};
    Vec policy;
    Vec value;
    Vec entropy;
  };

  Settings set;
  Moments advantage{0.0F, 1.0F};

  SHOAL_INLINE_MEMBER explicit A2c(const Settings& settings) noexcept : set(settings) {}

  [[nodiscard]] SHOAL_INLINE_MEMBER int least_samples() const noexcept { return set.norm_adv != 0.0F ? 2 : 1; }

  SHOAL_INLINE_MEMBER void prepare(const Minibatch& batch) noexcept {
    if (set.norm_adv != 0.0F) {
      advantage = column_moments(batch, place_of<Columns>("advantage"));
    }
  }

  SHOAL_INLINE_MEMBER ActorSlope actor(Vec weight, Vec log_prob, Vec entropy, const Columns& in,
                                       Stats& sums) const noexcept {
    const Vec gain = (in.advantage - advantage.mean) * advantage.inv_std;
    sums.policy -= weight * (gain * log_prob);
    sums.entropy += weight * entropy;
    return {-weight * gain, -(set.ent_coef * weight)};
  }

  SHOAL_INLINE_MEMBER Vec critic(Vec weight, Vec value, const Columns& in, Stats& sums) const noexcept {
    const Vec error = value - in.target;
    sums.value += weight * (0.5F * (error * error));
    return set.vf_coef * weight * error;
  }
};

}  // namespace shoal::SHOAL_ISA
