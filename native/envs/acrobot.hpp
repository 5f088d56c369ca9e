// Acrobot-v1: swing a two-link arm above the bar by its middle joint (Sutton 1996), with Gymnasium's bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/env.hpp"
#include "math/numpy.hpp"

namespace shoal {

struct Acrobot {
  static constexpr double pi = std::numbers::pi;
  static constexpr double max_spin_1 = 4 * pi;
  static constexpr double max_spin_2 = 9 * pi;

  static constexpr std::string_view id = "Acrobot-v1";
  static constexpr Box<6> observation_space{
      {-1, -1, -1, -1, -static_cast<float>(max_spin_1), -static_cast<float>(max_spin_2)},
      {1, 1, 1, 1, static_cast<float>(max_spin_1), static_cast<float>(max_spin_2)}};
  static constexpr Discrete action_space{3};
  static constexpr int max_episode_steps = 500;
  static constexpr std::optional<double> reward_threshold = -100.0;
  using Params = NoParams;

  /// Angle of the first link from straight down, of the second from the first, and their rates.
  using State = std::array<double, 4>;
  State state;
  /// Gymnasium starts an episode in float32, whose sines NumPy computes in another way.
  bool first_obs;

  void reset(const Params& /*params*/, Pcg64& rng) noexcept {
    for (double& value : state) {
      value = static_cast<float>(rng.uniform(-0.1, 0.1));
    }
    first_obs = true;
  }

  Outcome step(const Params& /*params*/, std::int64_t action) noexcept {
    integrate(static_cast<double>(action - 1));
    state[0] = wrap(state[0]);
    state[1] = wrap(state[1]);
    state[2] = std::clamp(state[2], -max_spin_1, max_spin_1);
    state[3] = std::clamp(state[3], -max_spin_2, max_spin_2);
    first_obs = false;
    const bool terminated = -std::cos(state[0]) - std::cos(state[1] + state[0]) > 1.0;
    return {terminated ? 0.0 : -1.0, terminated};
  }

  void observe(std::span<float, 6> obs) const noexcept {
    for (std::size_t link = 0; link < 2; ++link) {
      const double angle = state[link];
      const auto start = static_cast<float>(angle);
      obs[2 * link] = first_obs ? numpy_cos(start) : static_cast<float>(std::cos(angle));
      obs[2 * link + 1] = first_obs ? numpy_sin(start) : static_cast<float>(std::sin(angle));
      obs[4 + link] = static_cast<float>(state[2 + link]);
    }
  }

  [[nodiscard]] bool valid(const Params& /*params*/) const noexcept {
    return is_flag(first_obs) && std::abs(state[0]) <= pi && std::abs(state[1]) <= pi &&
           std::abs(state[2]) <= max_spin_1 && std::abs(state[3]) <= max_spin_2;
  }

 private:
  static double wrap(double angle) noexcept {
    while (angle > pi) {
      angle -= 2 * pi;
    }
    while (angle < -pi) {
      angle += 2 * pi;
    }
    return angle;
  }

  /// Equations of motion of Sutton and Barto's book; links of 1 m and 1 kg, centers at 0.5 m, moments of inertia 1.
  static State rates(const State& at, double torque) noexcept {
    const auto& [angle_1, angle_2, spin_1, spin_2] = at;
    constexpr double gravity = 9.8;
    const double cosine = std::cos(angle_2);
    const double sine = std::sin(angle_2);
    const double inertia_1 = 0.25 + (1.25 + cosine) + 1.0 + 1.0;
    const double inertia_2 = 0.25 + 0.5 * cosine + 1.0;
    const double weight_2 = 0.5 * gravity * std::cos(angle_1 + angle_2 - pi / 2);
    const double load = -0.5 * python_square(spin_2) * sine - spin_2 * spin_1 * sine +
                        1.5 * gravity * std::cos(angle_1 - pi / 2) + weight_2;
    const double acceleration_2 =
        (torque + inertia_2 / inertia_1 * load - 0.5 * python_square(spin_1) * sine - weight_2) /
        (1.25 - python_square(inertia_2) / inertia_1);
    const double acceleration_1 = -(inertia_2 * acceleration_2 + load) / inertia_1;
    return {spin_1, spin_2, acceleration_1, acceleration_2};
  }

  static State plus(const State& at, double seconds, const State& rate) noexcept {
    State sum{};
    for (std::size_t i = 0; i < sum.size(); ++i) {
      sum[i] = at[i] + seconds * rate[i];
    }
    return sum;
  }

  /// Runge and Kutta's fourth-order step of 0.2 s.
  void integrate(double torque) noexcept {
    constexpr double seconds = 0.2;
    const State k1 = rates(state, torque);
    const State k2 = rates(plus(state, seconds / 2, k1), torque);
    const State k3 = rates(plus(state, seconds / 2, k2), torque);
    const State k4 = rates(plus(state, seconds, k3), torque);
    for (std::size_t i = 0; i < state.size(); ++i) {
      state[i] = state[i] + seconds / 6 * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]);
    }
  }
};

}  // namespace shoal
