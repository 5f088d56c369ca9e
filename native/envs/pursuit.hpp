// shoal/Pursuit-v0: four hunters chase two prey on a grid; it takes two of them to catch one.
//
// A prey is caught when, after the hunters' move, at least two of them stand on its cell or beside it. It then gives
// every hunter half a point, so that all agents of an environment earn the same. In every second step the prey move by
// one cell, to where the nearest hunter is farthest; among equals they choose at random.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>

#include "core/env.hpp"
#include "math/splitmix.hpp"

namespace shoal {

struct Pursuit {
  static constexpr int num_agents = 4;
  static constexpr int prey = 2, side = 8, choices = 5;

  static constexpr std::string_view id = "shoal/Pursuit-v0";
  /// Of an agent: its place, where the others are from there, where each prey is and whether it runs (0, 0, 0 if
  /// caught), and whether the prey move next.
  static constexpr int obs_size = 2 + 2 * (num_agents - 1) + 3 * prey + 1;
  static constexpr Box<obs_size> observation_space = Box<obs_size>::between(-1, 1);
  static constexpr Discrete action_space{choices};  // stay, up, right, down, left
  static constexpr int max_episode_steps = 100;
  static constexpr std::optional<double> reward_threshold = 0.9;
  static constexpr Frame frame{96, 96};
  using Params = NoParams;

  struct Place {
    std::int8_t x, y;
    bool operator==(const Place&) const = default;
  };

  std::array<Place, num_agents> hunters;
  std::array<Place, prey> hunted;
  std::array<bool, prey> running;
  bool restless;  ///< whether the prey move in the next step
  SplitMix64 draws;

  void reset(const Params& /*params*/, Pcg64& rng) noexcept {
    draws = {rng.next_u64()};
    running.fill(true);
    restless = false;
    for (Place& place : hunters) {
      place = drawn();
    }
    for (Place& place : hunted) {
      do {
        place = drawn();
      } while (nearest_hunter(place) < 3);
    }
  }

  TeamOutcome<num_agents> step(const Params& /*params*/, std::span<const std::int64_t, num_agents> actions) noexcept {
    for (std::size_t i = 0; i < num_agents; ++i) {
      hunters[i] = moved(hunters[i], static_cast<int>(actions[i]));
    }
    double reward = 0;
    for (std::size_t i = 0; i < prey; ++i) {
      if (running[i] && hunters_beside(hunted[i]) >= 2) {
        running[i] = false;
        reward += 1.0 / prey;
      }
    }
    for (std::size_t i = 0; restless && i < prey; ++i) {
      if (running[i]) {
        hunted[i] = refuge(hunted[i]);
      }
    }
    restless = !restless;
    TeamOutcome<num_agents> outcome{};
    outcome.reward.fill(reward);
    outcome.terminated = std::none_of(running.begin(), running.end(), [](bool runs) { return runs; });
    return outcome;
  }

  void observe(int agent, std::span<float, obs_size> obs) const noexcept {
    constexpr float span = side - 1;
    const Place own = hunters[static_cast<std::size_t>(agent)];
    obs[0] = 2 * static_cast<float>(own.x) / span - 1;
    obs[1] = 2 * static_cast<float>(own.y) / span - 1;
    std::size_t at = 2;
    for (int i = 1; i < num_agents; ++i) {
      const Place other = hunters[static_cast<std::size_t>((agent + i) % num_agents)];
      obs[at++] = static_cast<float>(other.x - own.x) / span;
      obs[at++] = static_cast<float>(other.y - own.y) / span;
    }
    for (std::size_t i = 0; i < prey; ++i) {
      obs[at++] = running[i] ? static_cast<float>(hunted[i].x - own.x) / span : 0.0F;
      obs[at++] = running[i] ? static_cast<float>(hunted[i].y - own.y) / span : 0.0F;
      obs[at++] = running[i] ? 1.0F : 0.0F;
    }
    obs[at] = restless ? 1.0F : 0.0F;
  }

  [[nodiscard]] bool valid(const Params& /*params*/) const noexcept {
    const auto inside = [](Place place) { return place.x >= 0 && place.x < side && place.y >= 0 && place.y < side; };
    return is_flag(restless) && std::ranges::all_of(running, is_flag) && std::ranges::all_of(hunters, inside) &&
           std::ranges::all_of(hunted, inside);
  }

  void render(const Params& /*params*/, std::span<std::uint8_t> rgb) const noexcept {
    Canvas canvas(frame, rgb, colors::night);
    for (int cell = 0; cell < side * side; ++cell) {
      canvas.square(cell % side, cell / side, side, colors::slate);
    }
    for (std::size_t i = 0; i < prey; ++i) {
      canvas.square(hunted[i].x, hunted[i].y, side, running[i] ? colors::green : colors::red, 0.15);
    }
    for (const Place& place : hunters) {
      canvas.square(place.x, place.y, side, colors::orange, 0.25);
    }
  }

 private:
  static int distance(Place a, Place b) noexcept { return std::abs(a.x - b.x) + std::abs(a.y - b.y); }

  static Place moved(Place from, int action) noexcept {
    constexpr int across[choices] = {0, 0, 1, 0, -1}, down[choices] = {0, -1, 0, 1, 0};
    return {static_cast<std::int8_t>(std::clamp(from.x + across[action], 0, side - 1)),
            static_cast<std::int8_t>(std::clamp(from.y + down[action], 0, side - 1))};
  }

  Place drawn() noexcept {
    const auto x = static_cast<std::int8_t>(draws.below(side));
    return {x, static_cast<std::int8_t>(draws.below(side))};
  }

  [[nodiscard]] int nearest_hunter(Place place) const noexcept {
    int nearest = 2 * side;
    for (const Place& hunter : hunters) {
      nearest = std::min(nearest, distance(hunter, place));
    }
    return nearest;
  }

  [[nodiscard]] int hunters_beside(Place place) const noexcept {
    return static_cast<int>(std::count_if(hunters.begin(), hunters.end(),
                                          [&](const Place& hunter) { return distance(hunter, place) <= 1; }));
  }

  /// The best of the five cells, tried from a random one on.
  Place refuge(Place from) noexcept {
    const int first = draws.below(choices);
    Place best = from;
    int farthest = -1;
    for (int i = 0; i < choices; ++i) {
      const Place place = moved(from, (first + i) % choices);
      const int nearest = nearest_hunter(place);
      if (nearest > farthest) {
        farthest = nearest;
        best = place;
      }
    }
    return best;
  }
};

}  // namespace shoal
