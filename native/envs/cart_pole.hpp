// CartPole-v1: balance a pole on a cart (Barto, Sutton and Anderson 1983), with Gymnasium's bits.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/env.hpp"
#include "math/lanes.hpp"

namespace shoal {

struct CartPole {
  static constexpr double max_position = 2.4;
  static constexpr double max_angle = 12 * 2 * std::numbers::pi / 360;

  static constexpr std::string_view id = "CartPole-v1";
  static constexpr float infinity = std::numeric_limits<float>::infinity();
  static constexpr Box<4> observation_space{
      {-static_cast<float>(2 * max_position), -infinity, -static_cast<float>(2 * max_angle), -infinity},
      {static_cast<float>(2 * max_position), infinity, static_cast<float>(2 * max_angle), infinity}};
  static constexpr Discrete action_space{2};
  static constexpr int max_episode_steps = 500;
  static constexpr std::optional<double> reward_threshold = 475.0;

  struct Params {
    double sutton_barto_reward = 0;  ///< 1: reward 0 for a step and -1 for the fall
    static constexpr auto fields() { return std::array{Field{"sutton_barto_reward", &Params::sutton_barto_reward}}; }
  };

  double position, velocity, angle, spin;  ///< step_block reads rows as records of these four

  void reset(const Params& /*params*/, Pcg64& rng) noexcept {
    position = rng.uniform(-0.05, 0.05);
    velocity = rng.uniform(-0.05, 0.05);
    angle = rng.uniform(-0.05, 0.05);
    spin = rng.uniform(-0.05, 0.05);
  }

  Outcome step(const Params& params, std::int64_t action) noexcept {
    const double force = action == 1 ? 10.0 : -10.0;
    move(force, std::sin(angle), std::cos(angle), position, velocity, angle, spin);
    const bool fell = position < -max_position || position > max_position || angle < -max_angle || angle > max_angle;
    return {reward_of(params, fell), fell};
  }

  void observe(std::span<float, 4> obs) const noexcept {
    obs[0] = static_cast<float>(position);
    obs[1] = static_cast<float>(velocity);
    obs[2] = static_cast<float>(angle);
    obs[3] = static_cast<float>(spin);
  }

  [[nodiscard]] bool valid(const Params& /*params*/) const noexcept {
    return are_finite(static_cast<float>(velocity), static_cast<float>(spin)) && std::abs(position) <= max_position &&
           std::abs(angle) <= max_angle;
  }

  /// `step` and `observe` of many rows: sines in one pass, the motion in another, both in vectors of one row a lane.
  /// Without vectors of four lanes it would be slower than row by row.
  static void step_block(const Params& params, std::span<CartPole> envs, const std::int64_t* actions,
                         const StepOut& out) noexcept {
#if defined(__x86_64__) && defined(__GNUC__)
    static const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    static const bool has_avx2 = __builtin_cpu_supports("avx2");
    if (has_avx512) {
      return step_avx512(params, envs, actions, out);
    }
    if (has_avx2) {
      return step_avx2(params, envs, actions, out);
    }
#endif
    step_singly(params, envs, 0, actions, out);
  }

 private:
  static constexpr std::size_t block_rows = 256;

  static double reward_of(const Params& params, bool fell) noexcept {
    if (params.sutton_barto_reward != 0) {
      return fell ? -1.0 : 0.0;
    }
    return 1.0;
  }

  /// Euler's step of 0.02 s, for one row or for vectors of rows.
  template <class F>
  [[gnu::always_inline]] static void move(const F& force, const F& sine, const F& cosine, F& position, F& velocity,
                                          F& angle, F& spin) noexcept {
    constexpr double mass_pole = 0.1;
    constexpr double mass = mass_pole + 1.0;
    constexpr double half_length = 0.5;
    constexpr double pole_moment = mass_pole * half_length;
    constexpr double seconds = 0.02;
    const F push = (force + pole_moment * (spin * spin) * sine) / mass;
    const F spin_rate =
        (9.8 * sine - cosine * push) / (half_length * (4.0 / 3.0 - mass_pole * (cosine * cosine) / mass));
    const F acceleration = push - pole_moment * spin_rate * cosine / mass;
    position = position + seconds * velocity;
    velocity = velocity + seconds * acceleration;
    angle = angle + seconds * spin;
    spin = spin + seconds * spin_rate;
  }

  template <class V>
  [[gnu::always_inline]] static void step_lanes(const Params& params, std::span<CartPole> envs,
                                                const std::int64_t* actions, const StepOut& out) noexcept {
    SineBlock<block_rows> sines;
    for (std::size_t from = 0; from < envs.size(); from += block_rows) {
      const std::size_t count = std::min(block_rows, envs.size() - from);
      const std::size_t whole = count / 8 * 8;
      CartPole* rows = envs.data() + from;
      for (std::size_t i = 0; i < whole; ++i) {
        sines.angle[i] = rows[i].angle;
      }
      for (std::size_t i = 0; i < whole; i += V::size) {
        sines.template compute<V>(i);
      }
      sines.settle(whole);
      for (std::size_t i = 0; i < whole; i += V::size) {
        move_lanes<V>(params, sines, i, rows + i, actions + from + i, out, from + i);
      }
      step_singly(params, envs.subspan(0, from + count), from + whole, actions, out);
    }
  }

  static void step_singly(const Params& params, std::span<CartPole> envs, std::size_t from, const std::int64_t* actions,
                          const StepOut& out) noexcept {
    for (std::size_t i = from; i < envs.size(); ++i) {
      const Outcome outcome = envs[i].step(params, actions[i]);
      envs[i].observe(std::span<float, 4>(out.obs + 4 * i, 4));
      out.reward[i] = outcome.reward;
      out.terminated[i] = static_cast<std::uint8_t>(outcome.terminated);
    }
  }

  template <class V>
  [[gnu::always_inline]] static void move_lanes(const Params& params, const SineBlock<block_rows>& sines, std::size_t i,
                                                CartPole* rows, const std::int64_t* actions, const StepOut& out,
                                                std::size_t to) noexcept {
    using F = typename V::F;
    using U = typename V::U;
    auto* memory = reinterpret_cast<std::byte*>(rows);
    F state[4];
    F sine, cosine;
    U action;
    for (std::size_t k = 0; k < 4; ++k) {
      load_lanes(state[k], memory + k * sizeof(F));
    }
    V::to_fields(state[0], state[1], state[2], state[3]);
    load_lanes(sine, &sines.sine[i]);
    load_lanes(cosine, &sines.cosine[i]);
    load_lanes(action, actions);
    const F force = (F)((~action << 63) | std::bit_cast<std::uint64_t>(10.0));
    move(force, sine, cosine, state[0], state[1], state[2], state[3]);
    // Beyond a limit the distance to it is negative.
    const U off_track = (U)(max_position - state[0]) | (U)(max_position + state[0]);
    const U fallen = (U)(max_angle - state[2]) | (U)(max_angle + state[2]);
    store_lanes(__builtin_convertvector((off_track | fallen) >> 63, typename V::U8), out.terminated + to);
    V::to_records(state[0], state[1], state[2], state[3]);
    for (std::size_t k = 0; k < 4; ++k) {
      store_lanes(state[k], memory + k * sizeof(F));
      store_lanes(__builtin_convertvector(state[k], typename V::F32), out.obs + 4 * to + k * V::size);
    }
    for (std::size_t k = 0; k < V::size; ++k) {
      out.reward[to + k] = reward_of(params, out.terminated[to + k] != 0);
    }
  }

#if defined(__x86_64__) && defined(__GNUC__)
  [[gnu::target("avx512f,avx512dq,avx512vl,avx512bw")]] static void step_avx512(const Params& params,
                                                                                std::span<CartPole> envs,
                                                                                const std::int64_t* actions,
                                                                                const StepOut& out) noexcept {
    step_lanes<Lanes8>(params, envs, actions, out);
  }
  [[gnu::target("avx2")]] static void step_avx2(const Params& params, std::span<CartPole> envs,
                                                const std::int64_t* actions, const StepOut& out) noexcept {
    step_lanes<Lanes4>(params, envs, actions, out);
  }
#endif
};

}  // namespace shoal
