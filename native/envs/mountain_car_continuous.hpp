// MountainCarContinuous-v0: the car in the valley with a throttle that costs, with Gymnasium's bits.
#pragma once

#include <cmath>

#include "core/env.hpp"

namespace shoal {

struct MountainCarContinuous {
  static constexpr double min_position = -1.2;
  static constexpr double max_position = 0.6;
  static constexpr double max_speed = 0.07;
  static constexpr double goal_position = 0.45;

  static constexpr std::string_view id = "MountainCarContinuous-v0";
  static constexpr Box<2> observation_space{{static_cast<float>(min_position), -static_cast<float>(max_speed)},
                                            {static_cast<float>(max_position), static_cast<float>(max_speed)}};
  static constexpr Box<1> action_space{{-1}, {1}};
  static constexpr int max_episode_steps = 999;
  static constexpr std::optional<double> reward_threshold = 90.0;

  struct Params {
    double goal_velocity = 0;  ///< speed with which the flag must be passed
    static constexpr auto fields() { return std::array{Field{"goal_velocity", &Params::goal_velocity}}; }
  };

  double position, velocity;
  /// Gymnasium starts an episode in float64; its step leaves float32, and from then on NumPy computes in float32.
  bool first_step;

  void reset(const Params& /*params*/, Pcg64& rng) noexcept {
    position = rng.uniform(-0.6, -0.4);
    velocity = 0;
    first_step = true;
  }

  Outcome step(const Params& params, std::span<const float, 1> action) noexcept {
    const bool terminated =
        first_step ? move<double>(action[0], params.goal_velocity) : move<float>(action[0], params.goal_velocity);
    first_step = false;
    const double throttle = action[0];
    return {(terminated ? 100.0 : 0.0) - throttle * throttle * 0.1, terminated};
  }

  void observe(std::span<float, 2> obs) const noexcept {
    obs[0] = static_cast<float>(position);
    obs[1] = static_cast<float>(velocity);
  }

  [[nodiscard]] bool valid(const Params& /*params*/) const noexcept {
    constexpr auto& space = observation_space;
    return is_flag(first_step) && position >= space.low[0] && position <= space.high[0] && velocity >= space.low[1] &&
           velocity <= space.high[1];
  }

 private:
  /// One step in the number type that NumPy would use; true when the flag is passed.
  template <class T>
  bool move(float throttle, double goal_velocity) noexcept {
    auto place = static_cast<T>(position);
    auto speed = static_cast<T>(velocity);
    const double slope = 0.0025 * std::cos(static_cast<double>(3 * place));
    speed += static_cast<T>(throttle * 0.0015F - static_cast<float>(slope));
    constexpr auto limit = static_cast<T>(max_speed);
    // A clipped speed is a Python float: against the goal it counts unrounded.
    double goal_speed = speed;
    if (speed > limit) {
      speed = limit;
      goal_speed = max_speed;
    }
    if (speed < -limit) {
      speed = -limit;
      goal_speed = -max_speed;
    }
    place += speed;
    if (place > static_cast<T>(max_position)) {
      place = static_cast<T>(max_position);
    }
    if (place < static_cast<T>(min_position)) {
      place = static_cast<T>(min_position);
    }
    if (place == static_cast<T>(min_position) && speed < 0) {
      speed = 0;
      goal_speed = 0;
    }
    position = static_cast<float>(place);
    velocity = static_cast<float>(speed);
    return place >= static_cast<T>(goal_position) && goal_speed >= goal_velocity;
  }
};

}  // namespace shoal
