// shoal/Squared-v0: a probe of steering: from the middle of a square, touch one target on each of its sides.
//
// Four targets stand on the border of a grid of 11 x 11 cells, one on each side, corners excepted. Each is worth a
// quarter of a point; the episode ends with the last one.
#pragma once

#include <algorithm>
#include <array>

#include "core/env.hpp"
#include "math/splitmix.hpp"

namespace shoal {

struct Squared {
  static constexpr int reach = 5, targets = 4;  ///< the grid goes from -reach to reach

  static constexpr std::string_view id = "shoal/Squared-v0";
  /// The agent's place, then for each target where it lies from there and whether it still stands (0, 0, 0 if not).
  static constexpr Box<2 + 3 * targets> observation_space = Box<2 + 3 * targets>::between(-1, 1);
  static constexpr Discrete action_space{5};  // stay, up, right, down, left
  /// 5 steps lead to the border and 40 around it: nobody needs more.
  static constexpr int max_episode_steps = 9 * reach;
  static constexpr std::optional<double> reward_threshold = 0.9;
  static constexpr Frame frame{88, 88};
  using Params = NoParams;

  std::int8_t x, y;
  std::array<std::int8_t, targets> target_x, target_y;
  std::array<bool, targets> standing;

  void reset(const Params& /*params*/, Pcg64& rng) noexcept {
    SplitMix64 draws{rng.next_u64()};
    x = y = 0;
    standing.fill(true);
    for (std::size_t i = 0; i < targets; ++i) {
      const auto along = static_cast<std::int8_t>(draws.below(2 * reach - 1) - (reach - 1));
      const auto side = static_cast<std::int8_t>(i < 2 ? -reach : reach);
      target_x[i] = i % 2 == 0 ? along : side;
      target_y[i] = i % 2 == 0 ? side : along;
    }
  }

  Outcome step(const Params& /*params*/, std::int64_t action) noexcept {
    constexpr std::int8_t across[5] = {0, 0, 1, 0, -1}, down[5] = {0, -1, 0, 1, 0};
    x = static_cast<std::int8_t>(std::clamp(x + across[action], -reach, reach));
    y = static_cast<std::int8_t>(std::clamp(y + down[action], -reach, reach));
    double reward = 0;
    bool any = false;
    for (std::size_t i = 0; i < targets; ++i) {
      const bool touched = standing[i] && target_x[i] == x && target_y[i] == y;
      reward += touched ? 1.0 / targets : 0;
      standing[i] = standing[i] && !touched;
      any = any || standing[i];
    }
    return {reward, !any};
  }

  void observe(std::span<float, 2 + 3 * targets> obs) const noexcept {
    obs[0] = static_cast<float>(x) / reach;
    obs[1] = static_cast<float>(y) / reach;
    for (std::size_t i = 0; i < targets; ++i) {
      obs[2 + 3 * i] = standing[i] ? static_cast<float>(target_x[i] - x) / (2 * reach) : 0.0F;
      obs[3 + 3 * i] = standing[i] ? static_cast<float>(target_y[i] - y) / (2 * reach) : 0.0F;
      obs[4 + 3 * i] = standing[i] ? 1.0F : 0.0F;
    }
  }

  [[nodiscard]] bool valid(const Params& /*params*/) const noexcept {
    const auto inside = [](std::int8_t place) { return place >= -reach && place <= reach; };
    return inside(x) && inside(y) && std::ranges::all_of(target_x, inside) && std::ranges::all_of(target_y, inside) &&
           std::ranges::all_of(standing, is_flag);
  }

  void render(const Params& /*params*/, std::span<std::uint8_t> rgb) const noexcept {
    constexpr int size = 2 * reach + 1;
    Canvas canvas(frame, rgb, colors::night);
    for (int cell = 0; cell < size * size; ++cell) {
      canvas.square(cell % size, cell / size, size, colors::slate);
    }
    for (std::size_t i = 0; i < targets; ++i) {
      canvas.square(target_x[i] + reach, target_y[i] + reach, size, standing[i] ? colors::red : colors::green);
    }
    canvas.square(x + reach, y + reach, size, colors::chalk);
  }
};

}  // namespace shoal
