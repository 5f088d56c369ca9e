// LunarLander-v3: land between two flags with three engines that burn fuel, with Gymnasium's bits.
#pragma once

#include <cmath>
#include <numbers>
#include <optional>

#include "box2d/lander_world.hpp"
#include "core/env.hpp"

namespace shoal {

struct LanderParams {
  double gravity = -10;           ///< m/s2
  double enable_wind = 0;         ///< 1: wind and turbulence, while no leg touches the ground
  double wind_power = 15;         ///< the strongest sideways force
  double turbulence_power = 1.5;  ///< the strongest torque

  static constexpr auto fields() {
    return std::array{Field{"gravity", &LanderParams::gravity}, Field{"enable_wind", &LanderParams::enable_wind},
                      Field{"wind_power", &LanderParams::wind_power},
                      Field{"turbulence_power", &LanderParams::turbulence_power}};
  }

  /// What cannot be simulated. Gymnasium takes any wind; beyond these bounds float32 would overflow.
  [[nodiscard]] std::string_view refusal() const noexcept {
    if (!(gravity > -12 && gravity < 0)) {
      return "gravity must lie between -12 and 0";
    }
    if (!(std::fabs(wind_power) <= 1000 && std::fabs(turbulence_power) <= 1000)) {
      return "wind_power and turbulence_power must lie between -1000 and 1000";
    }
    return {};
  }
};

/// The two engines' parts in a step.
struct Thrust {
  double main;       ///< 0, or 0.5 to 1
  double side;       ///< 0, or 0.5 to 1
  double direction;  ///< of the side engine: -1 or 1
};

/// What both modes share.
class Lander {
 public:
  using Params = LanderParams;
  static constexpr bool replayed = true;
  static constexpr int grain = 4;
  static constexpr float turn = static_cast<float>(2 * std::numbers::pi);
  static constexpr Box<8> observation_space{{-2.5F, -2.5F, -10, -10, -turn, -10, 0, 0},
                                            {2.5F, 2.5F, 10, 10, turn, 10, 1, 1}};
  static constexpr int max_episode_steps = 1000;
  static constexpr std::optional<double> reward_threshold = 200.0;

  void reset(const Params& params, Pcg64& rng) noexcept {
    std::array<double, LanderWorld::num_ground_points + 1> height;
    for (double& one : height) {
      one = rng.uniform(0, LanderShape::height / 2);
    }
    constexpr std::size_t middle = LanderWorld::num_ground_points / 2;
    for (std::size_t i = middle - 2; i <= middle + 2; ++i) {
      height[i] = pad_height;
    }
    std::array<double, LanderWorld::num_ground_points> ground;
    for (std::size_t i = 0; i < ground.size(); ++i) {
      const double before = i == 0 ? height.back() : height[i - 1];
      ground[i] = 0.33 * (before + height[i] + height[i + 1]);
    }
    const double push_x = rng.uniform(-1000, 1000);
    const double push_y = rng.uniform(-1000, 1000);
    world_.emplace(params.gravity, ground, Vec{push_x, push_y});
    if (params.enable_wind != 0) {
      wind_ = rng.integer(-9999, 9999);
      turbulence_ = rng.integer(-9999, 9999);
    }
    shaping_.reset();
    move(params, rng, {0, 0, 0});
  }

  void observe(std::span<float, 8> obs) const noexcept {
    for (std::size_t i = 0; i < seen_.size(); ++i) {
      obs[i] = static_cast<float>(seen_[i]);
    }
  }

 protected:
  Outcome move(const Params& params, Pcg64& rng, const Thrust& thrust) noexcept {
    if (params.enable_wind != 0 && !world_->leg_touches(0) && !world_->leg_touches(1)) {
      const double force = gust(wind_++) * params.wind_power;
      world_->blow(force, gust(turbulence_++) * params.turbulence_power);
    }
    fire(thrust, rng);
    world_->step();
    look();
    const double shaping = -100 * std::sqrt(seen_[0] * seen_[0] + seen_[1] * seen_[1]) -
                           100 * std::sqrt(seen_[2] * seen_[2] + seen_[3] * seen_[3]) - 100 * std::fabs(seen_[4]) +
                           10 * seen_[6] + 10 * seen_[7];
    double reward = shaping_ ? shaping - *shaping_ : 0;
    shaping_ = shaping;
    reward -= thrust.main * 0.30;
    reward -= thrust.side * 0.03;
    if (world_->at_rest()) {
      return {100, true};
    }
    if (world_->crashed() || std::fabs(seen_[0]) >= 1) {
      return {-100, true};
    }
    return {reward, false};
  }

 private:
  static constexpr double scale = LanderShape::scale;
  static constexpr double pad_height = LanderShape::height / 4;
  static constexpr double steps_per_second = 50;

  /// Between -1 and 1, never periodic.
  static double gust(std::int64_t index) noexcept {
    const auto x = static_cast<double>(index);
    return std::tanh(std::sin(0.02 * x) + std::sin(std::numbers::pi * 0.01 * x));
  }

  void fire(const Thrust& thrust, Pcg64& rng) noexcept {
    const double angle = world_->angle();
    const Vec tip{std::sin(angle), std::cos(angle)};
    const Vec side{-tip.y, tip.x};
    const double along = rng.uniform(-1, 1) / scale;
    const double across = rng.uniform(-1, 1) / scale;
    const Vec start = world_->position();
    if (thrust.main != 0) {
      const Vec away{tip.x * (4 / scale + 2 * along) + side.x * across,
                     -tip.y * (4 / scale + 2 * along) - side.y * across};
      kick(away, 13 * 1.0, thrust.main, {start.x + away.x, start.y + away.y});
    }
    if (thrust.side != 0) {
      const double outwards = 3 * across + thrust.direction * 12 / scale;
      const Vec away{tip.x * along + side.x * outwards, -tip.y * along - side.y * outwards};
      // The place is not symmetric: Gymnasium measures its height by 17 in x and by 14 in y.
      kick(away, 0.6, thrust.side, {start.x + away.x - tip.x * 17 / scale, start.y + away.y + tip.y * 14 / scale});
    }
  }

  void kick(Vec away, double power, double throttle, Vec place) noexcept {
    world_->kick({-away.x * power * throttle, -away.y * power * throttle}, place);
  }

  void look() noexcept {
    constexpr double half_width = LanderShape::width / 2;
    constexpr double half_height = LanderShape::height / 2;
    const Vec position = world_->position();
    const Vec velocity = world_->velocity();
    seen_ = {(position.x - half_width) / half_width,
             (position.y - (pad_height + LanderShape::leg_down / scale)) / half_height,
             velocity.x * half_width / steps_per_second,
             velocity.y * half_height / steps_per_second,
             world_->angle(),
             20.0 * world_->spin() / steps_per_second,
             world_->leg_touches(0) ? 1.0 : 0.0,
             world_->leg_touches(1) ? 1.0 : 0.0};
  }

  std::optional<LanderWorld> world_;
  std::array<double, 8> seen_{};
  std::optional<double> shaping_;  ///< of the step before
  std::int64_t wind_ = 0;
  std::int64_t turbulence_ = 0;
};

struct LunarLander : Lander {
  static constexpr std::string_view id = "LunarLander-v3";
  static constexpr Discrete action_space{4};  ///< nothing, left, main and right engine

  Outcome step(const Params& params, std::int64_t action, Pcg64& rng) noexcept {
    const bool side = action == 1 || action == 3;
    return move(params, rng, {action == 2 ? 1.0 : 0.0, side ? 1.0 : 0.0, static_cast<double>(action - 2)});
  }
};

}  // namespace shoal
