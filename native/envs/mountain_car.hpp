// MountainCar-v0: a car too weak for the hill swings itself up (Moore 1990), with Gymnasium's bits.
#pragma once

#include <algorithm>
#include <cmath>

#include "core/env.hpp"

namespace shoal {

struct MountainCar {
  static constexpr double min_position = -1.2;
  static constexpr double max_position = 0.6;
  static constexpr double max_speed = 0.07;

  static constexpr std::string_view id = "MountainCar-v0";
  static constexpr Box<2> observation_space{{static_cast<float>(min_position), -static_cast<float>(max_speed)},
                                            {static_cast<float>(max_position), static_cast<float>(max_speed)}};
  static constexpr Discrete action_space{3};
  static constexpr int max_episode_steps = 200;
  static constexpr std::optional<double> reward_threshold = -110.0;

  struct Params {
    double goal_velocity = 0;  ///< speed with which the flag must be passed
    static constexpr auto fields() { return std::array{Field{"goal_velocity", &Params::goal_velocity}}; }
  };

  double position, velocity;

  void reset(const Params& /*params*/, Pcg64& rng) noexcept {
    position = rng.uniform(-0.6, -0.4);
    velocity = 0;
  }

  Outcome step(const Params& params, std::int64_t action) noexcept {
    const double thrust = static_cast<double>(action - 1) * 0.001;
    velocity += thrust + std::cos(3 * position) * -0.0025;
    velocity = std::clamp(velocity, -max_speed, max_speed);
    position = std::clamp(position + velocity, min_position, max_position);
    if (position == min_position && velocity < 0) {
      velocity = 0;
    }
    return {-1.0, position >= 0.5 && velocity >= params.goal_velocity};
  }

  void observe(std::span<float, 2> obs) const noexcept {
    obs[0] = static_cast<float>(position);
    obs[1] = static_cast<float>(velocity);
  }

  [[nodiscard]] bool valid(const Params& /*params*/) const noexcept {
    return position >= min_position && position <= max_position && std::abs(velocity) <= max_speed;
  }
};

}  // namespace shoal
