// LunarLanderContinuous-v3: the lander with throttles, with Gymnasium's bits.
#pragma once

#include <algorithm>

#include "envs/box2d/lunar_lander.hpp"

namespace shoal {

struct LunarLanderContinuous : Lander {
  static constexpr std::string_view id = "LunarLanderContinuous-v3";
  static constexpr Box<2> action_space{{-1, -1}, {1, 1}};  ///< main engine: off up to 0; side engines: off up to 0.5

  Outcome step(const Params& params, std::span<const float, 2> action, Pcg64& rng) noexcept {
    const double main = action[0];
    const double side = action[1];
    return move(params, rng,
                {main > 0 ? (main + 1) * 0.5 : 0, std::fabs(side) > 0.5 ? std::fabs(side) : 0, side < 0 ? -1.0 : 1.0});
  }
};

}  // namespace shoal
