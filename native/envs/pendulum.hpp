// Pendulum-v1: swing a pendulum up and hold it with little torque, with Gymnasium's bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/env.hpp"
#include "math/numpy.hpp"

namespace shoal {

struct Pendulum {
  static constexpr std::string_view id = "Pendulum-v1";
  static constexpr Box<3> observation_space{{-1, -1, -8}, {1, 1, 8}};
  static constexpr Box<1> action_space{{-2}, {2}};
  static constexpr int max_episode_steps = 200;
  static constexpr std::optional<double> reward_threshold = std::nullopt;

  struct Params {
    double g = 10.0;  ///< gravity, m/s^2
    static constexpr auto fields() { return std::array{Field{"g", &Params::g}}; }
  };

  double angle, spin;  ///< 0 is upright; the angle is not wrapped

  void reset(const Params& /*params*/, Pcg64& rng) noexcept {
    angle = rng.uniform(-std::numbers::pi, std::numbers::pi);
    spin = rng.uniform(-1.0, 1.0);
  }

  Outcome step(const Params& params, std::span<const float, 1> action) noexcept {
    constexpr double pi = std::numbers::pi;
    constexpr double seconds = 0.05;
    const float torque = std::clamp(action[0], -2.0F, 2.0F);
    const double upright = python_mod(angle + pi, 2 * pi) - pi;
    // NumPy keeps a float32 torque times a Python number in float32.
    const double effort = 0.001F * python_square(torque);
    const double cost = python_square(upright) + 0.1 * python_square(spin) + effort;

    const double push = 3.0F * torque;
    spin = std::clamp(spin + (3 * params.g / 2.0 * std::sin(angle) + push) * seconds, -8.0, 8.0);
    angle = angle + spin * seconds;
    return {-cost, false};
  }

  void observe(std::span<float, 3> obs) const noexcept {
    obs[0] = static_cast<float>(std::cos(angle));
    obs[1] = static_cast<float>(std::sin(angle));
    obs[2] = static_cast<float>(spin);
  }

  [[nodiscard]] bool valid(const Params& /*params*/) const noexcept {
    return are_finite(angle) && std::abs(spin) <= 8.0;
  }
};

}  // namespace shoal
