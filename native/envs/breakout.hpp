// shoal/Breakout-v0: a ball, a paddle and a wall of bricks; one point a brick.
//
// The field is 1 wide and 1 high, y upwards. The paddle lies along y = 0; bricks fill `rows` rows from y = 0.55 to 0.8,
// so that a ball that has broken through plays above them. Where the ball meets the paddle decides its angle: straight
// up from the middle, 58 degrees off from the edges. A ball that the paddle misses costs a life and is served anew.
#pragma once

#include <algorithm>
#include <cmath>

#include "core/env.hpp"
#include "math/splitmix.hpp"

namespace shoal {

struct Breakout {
  static constexpr int rows = 5, columns = 8, bricks_at_start = rows * columns;
  static constexpr double wall_bottom = 0.55, brick_height = 0.05;

  static constexpr std::string_view id = "shoal/Breakout-v0";
  static constexpr Box<7 + bricks_at_start> observation_space = Box<7 + bricks_at_start>::between(-1, 1);
  static constexpr Discrete action_space{3};  // stay, left, right
  static constexpr int max_episode_steps = 2500;
  static constexpr std::optional<double> reward_threshold = 0.9 * bricks_at_start;
  static constexpr Frame frame{96, 96};

  struct Params {
    double speed = 0.04;  ///< of the ball a step; below a brick's height, so that it skips none
    double paddle_speed = 0.04;
    double paddle_half = 0.08;  ///< half of the paddle's width
    double lives = 3;
    static constexpr auto fields() {
      return std::array{
          Field{"speed", &Params::speed, 0.005, 0.049}, Field{"paddle_speed", &Params::paddle_speed, 0.001, 1.0},
          Field{"paddle_half", &Params::paddle_half, 0.01, 0.5}, Field{"lives", &Params::lives, 1, 10, true}};
    }
  };

  double x, y, speed_x, speed_y, paddle;
  std::uint64_t bricks;  ///< one bit each, row by row from the bottom left
  SplitMix64 draws;
  int lives;

  void reset(const Params& params, Pcg64& rng) noexcept {
    draws = {rng.next_u64()};
    bricks = (std::uint64_t{1} << bricks_at_start) - 1;
    lives = static_cast<int>(params.lives);
    paddle = 0.5;
    serve(params);
  }

  Outcome step(const Params& params, std::int64_t action) noexcept {
    const double move = action == 1 ? -params.paddle_speed : (action == 2 ? params.paddle_speed : 0.0);
    paddle = std::clamp(paddle + move, params.paddle_half, 1 - params.paddle_half);
    const double y_before = y;
    move_ball();
    const double reward = hit_brick(y_before) ? 1 : 0;
    if (y < 0) {
      meet_paddle(params);
    }
    return {reward, bricks == 0 || lives == 0};
  }

  void observe(std::span<float, 7 + bricks_at_start> obs) const noexcept {
    obs[0] = static_cast<float>(2 * x - 1);
    obs[1] = static_cast<float>(2 * y - 1);
    obs[2] = static_cast<float>(20 * speed_x);
    obs[3] = static_cast<float>(20 * speed_y);
    obs[4] = static_cast<float>(2 * paddle - 1);
    obs[5] = static_cast<float>(x - paddle);
    obs[6] = static_cast<float>(lives) / 10;
    for (std::size_t brick = 0; brick < bricks_at_start; ++brick) {
      obs[7 + brick] = static_cast<float>(bricks >> brick & 1);
    }
  }

  [[nodiscard]] bool valid(const Params& params) const noexcept {
    const auto inside = [](double place) { return place >= 0 && place <= 1; };
    const auto slow = [&params](double speed) { return std::abs(speed) <= 1.001 * params.speed; };
    return inside(x) && inside(y) && slow(speed_x) && slow(speed_y) && inside(paddle) && bricks != 0 &&
           bricks >> bricks_at_start == 0 && lives >= 1 && lives <= params.lives;
  }

  void render(const Params& params, std::span<std::uint8_t> rgb) const noexcept {
    constexpr Color paints[rows] = {colors::blue, colors::green, colors::yellow, colors::orange, colors::red};
    Canvas canvas(frame, rgb, colors::night);
    for (int row = 0; row < rows; ++row) {
      for (int column = 0; column < columns; ++column) {
        if ((bricks >> (row * columns + column) & 1) != 0) {
          const double top = 1 - wall_bottom - (row + 1) * brick_height;
          canvas.box((column + 0.04) / columns, top + 0.01, (column + 0.96) / columns, top + brick_height, paints[row]);
        }
      }
    }
    canvas.box(paddle - params.paddle_half, 0.97, paddle + params.paddle_half, 1, colors::chalk);
    canvas.box(x - 0.012, 1 - y - 0.012, x + 0.012, 1 - y + 0.012, colors::chalk);
  }

 private:
  void serve(const Params& params) noexcept {
    x = draws.uniform(0.1, 0.9);
    y = 0.5;
    speed_x = params.speed * draws.uniform(-0.5, 0.5);
    speed_y = -std::sqrt(params.speed * params.speed - speed_x * speed_x);
  }

  void move_ball() noexcept {
    x += speed_x;
    y += speed_y;
    if (x < 0 || x > 1) {
      x = x < 0 ? -x : 2 - x;
      speed_x = -speed_x;
    }
    if (y > 1) {
      y = 2 - y;
      speed_y = -speed_y;
    }
  }

  /// Breaks the brick that the ball has come into. It bounces off vertically where it came from another row.
  bool hit_brick(double y_before) noexcept {
    const int row = static_cast<int>(std::floor((y - wall_bottom) / brick_height));
    if (row < 0 || row >= rows) {
      return false;
    }
    const int column = std::min(static_cast<int>(x * columns), columns - 1);
    const std::uint64_t brick = std::uint64_t{1} << (row * columns + column);
    if ((bricks & brick) == 0) {
      return false;
    }
    bricks &= ~brick;
    if (static_cast<int>(std::floor((y_before - wall_bottom) / brick_height)) != row) {
      speed_y = -speed_y;
    } else {
      speed_x = -speed_x;
    }
    return true;
  }

  void meet_paddle(const Params& params) noexcept {
    const double offset = (x - paddle) / params.paddle_half;
    if (std::abs(offset) <= 1) {
      y = -y;
      speed_x = 0.85 * params.speed * offset;
      speed_y = std::sqrt(params.speed * params.speed - speed_x * speed_x);
    } else if (--lives > 0) {
      serve(params);
    } else {
      y = 0;
    }
  }
};

}  // namespace shoal
