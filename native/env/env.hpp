// What an environment is: the concept `Env`. One header of this folder is one environment; nothing else is edited.
//
// `native/env/my_game.hpp` declares `struct MyGame` (the file's name in camel case) in namespace shoal:
//
//   struct MyGame {
//     static constexpr std::string_view id = "MyGame-v0";
//     static constexpr Box<2> observation_space{{-1, -1}, {1, 1}};
//     static constexpr Discrete action_space{3};           // or Box<N>{low, high}
//     static constexpr int max_episode_steps = 200;        // 0: no limit
//     static constexpr std::optional<double> reward_threshold = 195.0;
//     struct Params {                                      // or `using Params = NoParams;`
//       double gravity = 9.8;
//       static constexpr auto fields() { return std::array{Field{"gravity", &Params::gravity}}; }
//     };
//
//     double position, velocity;                           // the state: trivially copyable, no heap
//
//     void reset(const Params& params, Pcg64& rng) noexcept;                // starts an episode
//     Outcome step(const Params& params, std::int64_t action) noexcept;     // Box<N>: std::span<const float, N> action
//     void observe(std::span<float, 2> obs) const noexcept;                 // writes the observation
//   };
//
// A step that draws random numbers takes the row's generator too: `step(params, action, Pcg64& rng)`. A state that
// cannot be copied says `static constexpr bool replayed = true`: to restore it the pool plays its episode again. One
// whose step takes microseconds says how few rows are worth a thread: `static constexpr int grain = 4` (else 64).
//
// The pool owns the rest: time limit, autoreset, returns and lengths, threads, checks of actions, saving and restoring.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

#include "env/rows.hpp"
#include "math/pcg64.hpp"

namespace shoal {

/// The actions 0, 1, ..., n - 1.
struct Discrete {
  int n;
};

/// N float32 numbers between `low` and `high`, which may be infinite.
template <std::size_t N>
struct Box {
  static constexpr std::size_t size = N;
  std::array<float, N> low;
  std::array<float, N> high;
};

/// What a step gives besides the observation.
struct Outcome {
  double reward;
  bool terminated;
};

/// A parameter that users set by name.
template <class P>
struct Field {
  std::string_view name;
  double P::* member;
};
template <class P>
Field(const char*, double P::*) -> Field<P>;

/// The parameters of an environment that has none.
struct NoParams {
  static constexpr std::array<Field<NoParams>, 0> fields() { return {}; }
};

namespace detail {
template <class T>
inline constexpr bool is_box = false;
template <std::size_t N>
inline constexpr bool is_box<Box<N>> = true;
template <class E>
using ActionSpace = std::remove_cvref_t<decltype(E::action_space)>;
}  // namespace detail

template <class E>
concept HasId = requires {
  { E::id } -> std::convertible_to<std::string_view>;
};
template <class E>
concept HasObservationSpace = detail::is_box<std::remove_cvref_t<decltype(E::observation_space)>>;
template <class E>
concept HasActionSpace = std::same_as<detail::ActionSpace<E>, Discrete> || detail::is_box<detail::ActionSpace<E>>;
template <class E>
concept HasLimits = requires {
  { E::max_episode_steps } -> std::convertible_to<int>;
  { E::reward_threshold } -> std::convertible_to<std::optional<double>>;
};
template <class E>
concept HasParams = std::is_default_constructible_v<typename E::Params> && requires { E::Params::fields(); };
template <class E>
concept IsReplayed = requires { requires E::replayed; };
template <class E>
concept HasSavedState =
    std::is_default_constructible_v<E> && (std::is_trivially_copyable_v<E> || (IsReplayed<E> && std::movable<E>));

template <class E>
inline constexpr bool is_discrete = std::same_as<detail::ActionSpace<E>, Discrete>;
/// Elements of an observation.
template <HasObservationSpace E>
inline constexpr std::size_t obs_size_of = std::remove_cvref_t<decltype(E::observation_space)>::size;
/// Elements of an action.
template <HasActionSpace E>
inline constexpr std::size_t action_size_of = [] {
  if constexpr (is_discrete<E>) {
    return std::size_t{1};
  } else {
    return detail::ActionSpace<E>::size;
  }
}();
/// How actions lie in memory: int64 or float32.
template <class E>
using ActionElement = std::conditional_t<is_discrete<E>, std::int64_t, float>;
/// What `step` takes: one number, or the N of a Box.
template <HasActionSpace E>
using ActionOf = std::conditional_t<is_discrete<E>, std::int64_t, std::span<const float, action_size_of<E>>>;

template <class E>
concept HasReset = requires(E env, const typename E::Params& params, Pcg64& rng) {
  { env.reset(params, rng) } noexcept -> std::same_as<void>;
};
template <class E>
concept HasRandomStep = requires(E env, const typename E::Params& params, ActionOf<E> action, Pcg64& rng) {
  { env.step(params, action, rng) } noexcept -> std::same_as<Outcome>;
};
template <class E>
concept HasStep = HasRandomStep<E> || requires(E env, const typename E::Params& params, ActionOf<E> action) {
  { env.step(params, action) } noexcept -> std::same_as<Outcome>;
};
template <class E>
concept HasObserve = requires(const E env, std::span<float, obs_size_of<E>> obs) {
  { env.observe(obs) } noexcept -> std::same_as<void>;
};

/// An environment: a struct that can be reset, stepped and observed.
template <class E>
concept Env = HasId<E> && HasObservationSpace<E> && HasActionSpace<E> && HasLimits<E> && HasParams<E> &&
              HasSavedState<E> && HasReset<E> && HasStep<E> && HasObserve<E>;

/// Optional, for speed: step many rows at once. It must give the bits of `step` and `observe`, row by row, and writes
/// `obs`, `reward` and `terminated` of `out`; the pool does everything else.
template <class E>
concept HasStepBlock = Env<E> && requires(const typename E::Params& params, std::span<E> envs,
                                          const ActionElement<E>* actions, const StepOut& out) {
  { E::step_block(params, envs, actions, out) } noexcept -> std::same_as<void>;
};

/// Fails to compile with the name of what an environment lacks.
template <class E>
consteval bool require_env() {
  static_assert(HasId<E>, "concept shoal::Env: `static constexpr std::string_view id` is missing");
  static_assert(HasObservationSpace<E>, "concept shoal::Env: `static constexpr Box<N> observation_space` is missing");
  static_assert(HasActionSpace<E>, "concept shoal::Env: `static constexpr Discrete|Box<N> action_space` is missing");
  static_assert(HasLimits<E>,
                "concept shoal::Env: `static constexpr int max_episode_steps` or "
                "`static constexpr std::optional<double> reward_threshold` is missing");
  static_assert(HasParams<E>, "concept shoal::Env: `Params` with `fields()` is missing (`using Params = NoParams;`)");
  static_assert(HasSavedState<E>,
                "concept shoal::Env: the state must be default constructible and trivially copyable; one that is not "
                "trivially copyable needs `static constexpr bool replayed = true`");
  static_assert(HasReset<E>, "concept shoal::Env: `void reset(const Params&, Pcg64&) noexcept` is missing");
  static_assert(HasStep<E>,
                "concept shoal::Env: `Outcome step(const Params&, action) noexcept` is missing; action is "
                "std::int64_t for Discrete, std::span<const float, N> for Box<N>");
  static_assert(HasObserve<E>,
                "concept shoal::Env: `void observe(std::span<float, N>) const noexcept` is missing, with the N of "
                "observation_space");
  if constexpr (requires { &E::step_block; }) {
    static_assert(HasStepBlock<E>,
                  "concept shoal::HasStepBlock: `static void step_block(const Params&, std::span<E>, "
                  "const std::int64_t*|const float*, const StepOut&) noexcept` is expected");
  }
  return Env<E>;
}

}  // namespace shoal
