// Q-learning's loss on given targets (Mnih et al. 2015; weights as in prioritized replay, Schaul et al. 2016).
#pragma once

#include "net/fused.hpp"

namespace shoal::SHOAL_ISA {

/// weight * h(Q(s, a) - target), with h(x) = 0.5 x^2, or with `huber` |x| - 0.5 beyond |x| = 1.
struct Dqn {
  static constexpr const char* name = "dqn_loss";

  struct Columns {
    static constexpr const char* names[] = {"target", "weight"};
    Vec target;
    Vec weight;
  };
  struct Settings {
    static constexpr const char* names[] = {"huber"};
    float huber;
  };
  struct Stats {
    static constexpr const char* names[] = {"value", "q"};
    Vec value;
    Vec q;
  };

  Settings set;

  SHOAL_INLINE_MEMBER explicit Dqn(const Settings& settings) noexcept : set(settings) {}

  SHOAL_INLINE_MEMBER ValueSlope chosen(Vec weight, Vec value, const Columns& in, Stats& sums) const noexcept {
    const Vec error = value - in.target;
    const Vec slope = set.huber != 0.0F ? clamp(error, -1.0F, 1.0F) : error;
    sums.value += weight * (in.weight * (slope * (error - 0.5F * slope)));
    sums.q += weight * value;
    return {weight * (in.weight * slope), error};
  }
};

}  // namespace shoal::SHOAL_ISA
