// shoal/Pong-v0: table tennis against an opponent of limited speed, to 11 points; +1 a point won, -1 a point lost.
//
// The table is 1 wide and 1 high, y upwards. The player's paddle stands at x = 1, the opponent's at x = 0. The ball
// crosses the table at a constant speed; where it meets a paddle decides its vertical speed. The opponent goes after
// the ball, but slower than the ball can be sent up or down.
#pragma once

#include <algorithm>
#include <cmath>

#include "core/env.hpp"
#include "math/splitmix.hpp"

namespace shoal {

struct Pong {
  static constexpr int points = 11;
  static constexpr double paddle_half = 0.08;  ///< half of a paddle's height
  static constexpr double ball_speed = 0.04;   ///< along x a step
  static constexpr double steepest = 0.05;     ///< along y a step, from a paddle's edge

  static constexpr std::string_view id = "shoal/Pong-v0";
  static constexpr Box<8> observation_space = Box<8>::between(-1, 1);
  static constexpr Discrete action_space{3};  // stay, down, up
  static constexpr int max_episode_steps = 2000;
  static constexpr std::optional<double> reward_threshold = 0.9 * points;
  static constexpr Frame frame{96, 96};

  struct Params {
    double paddle_speed = 0.04;
    double opponent_speed = 0.02;
    static constexpr auto fields() {
      return std::array{Field{"paddle_speed", &Params::paddle_speed, 0.001, 1.0},
                        Field{"opponent_speed", &Params::opponent_speed, 0, 1.0}};
    }
  };

  double x, y, speed_x, speed_y, paddle, opponent;
  SplitMix64 draws;
  int won, lost;

  void reset(const Params& /*params*/, Pcg64& rng) noexcept {
    draws = {rng.next_u64()};
    won = lost = 0;
    serve();
  }

  Outcome step(const Params& params, std::int64_t action) noexcept {
    const double move = action == 1 ? -params.paddle_speed : (action == 2 ? params.paddle_speed : 0.0);
    paddle = std::clamp(paddle + move, paddle_half, 1 - paddle_half);
    const double chase = std::clamp(y - opponent, -params.opponent_speed, params.opponent_speed);
    opponent = std::clamp(opponent + chase, paddle_half, 1 - paddle_half);
    x += speed_x;
    y += speed_y;
    if (y < 0 || y > 1) {
      y = y < 0 ? -y : 2 - y;
      speed_y = -speed_y;
    }
    double reward = 0;
    if (x > 1 && !returned(paddle, 2 - x)) {
      reward = -1;
      ++lost;
      serve();
    } else if (x < 0 && !returned(opponent, -x)) {
      reward = 1;
      ++won;
      serve();
    }
    return {reward, won == points || lost == points};
  }

  void observe(std::span<float, 8> obs) const noexcept {
    obs[0] = static_cast<float>(2 * x - 1);
    obs[1] = static_cast<float>(2 * y - 1);
    obs[2] = speed_x > 0 ? 1.0F : -1.0F;
    obs[3] = static_cast<float>(speed_y / steepest);
    obs[4] = static_cast<float>(2 * paddle - 1);
    obs[5] = static_cast<float>(2 * opponent - 1);
    obs[6] = static_cast<float>(won) / points;
    obs[7] = static_cast<float>(lost) / points;
  }

  [[nodiscard]] bool valid(const Params& /*params*/) const noexcept {
    const auto inside = [](double place) { return place >= 0 && place <= 1; };
    const auto counts = [](int score) { return score >= 0 && score < points; };
    return inside(x) && inside(y) && std::abs(speed_x) == ball_speed && std::abs(speed_y) <= 1.001 * steepest &&
           inside(paddle) && inside(opponent) && counts(won) && counts(lost);
  }

  void render(const Params& /*params*/, std::span<std::uint8_t> rgb) const noexcept {
    Canvas canvas(frame, rgb, colors::night);
    for (int mark = 0; mark < 8; ++mark) {
      canvas.box(0.49, mark / 8.0, 0.51, mark / 8.0 + 0.06, colors::slate);
    }
    for (int point = 0; point < points; ++point) {
      canvas.box(0.03 + point * 0.04, 0.02, 0.05 + point * 0.04, 0.05, point < lost ? colors::red : colors::slate);
      canvas.box(0.55 + point * 0.04, 0.02, 0.57 + point * 0.04, 0.05, point < won ? colors::green : colors::slate);
    }
    canvas.box(0, 1 - opponent - paddle_half, 0.03, 1 - opponent + paddle_half, colors::red);
    canvas.box(0.97, 1 - paddle - paddle_half, 1, 1 - paddle + paddle_half, colors::green);
    canvas.box(x - 0.015, 1 - y - 0.015, x + 0.015, 1 - y + 0.015, colors::chalk);
  }

 private:
  /// From the middle of the table, to either side; both paddles are put back to the middle.
  void serve() noexcept {
    paddle = opponent = 0.5;
    x = 0.5;
    y = draws.uniform(0.2, 0.8);
    speed_x = draws.below(2) == 1 ? ball_speed : -ball_speed;
    speed_y = draws.uniform(-0.6, 0.6) * steepest;
  }

  /// Whether a paddle at height `at` stood before the ball, which then goes back and on from `back`.
  bool returned(double at, double back) noexcept {
    const double offset = (y - at) / paddle_half;
    if (std::abs(offset) > 1) {
      return false;
    }
    x = back;
    speed_x = -speed_x;
    speed_y = steepest * offset;
    return true;
  }
};

}  // namespace shoal
