// What an environment is: the concept `Env`. One header of this folder is one environment; nothing else is edited.
//
// `native/envs/my_game.hpp` declares `struct MyGame` (the file's name in camel case) in namespace shoal:
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
//     bool valid(const Params& params) const noexcept;                      // whether a step may come to this state
//   };
//
// A row is restored from bytes of a file, which may hold anything: `valid` is asked before the state is used. It reads
// nothing that the state's numbers point at before it has checked them, and a bool through `is_flag`. A state whose
// fields change their meaning at the same size says `static constexpr int state_version = 2`: saved rows of another
// version are refused.
//
// A step that draws random numbers takes the row's generator too: `step(params, action, Pcg64& rng)`. A state that
// cannot be copied says `static constexpr bool replayed = true`: to restore it the pool plays its episode again, and
// there is no `valid`. One
// whose step takes microseconds says how few rows are worth a thread: `static constexpr int grain = 4` (else 64).
//
// Two things may be added. A picture: `static constexpr Frame frame{height, width}` and
// `void render(const Params&, std::span<std::uint8_t> rgb) const noexcept`. And several agents, of which each owns a
// row: `static constexpr int num_agents = A`; `step` then takes the actions of all, one after another, in one span and
// returns a `TeamOutcome<A>`, and `observe(int agent, obs)` writes what one of them sees. An episode ends for all of
// them at once.
//
// The pool owns the rest: time limit, autoreset, returns and lengths, threads, checks of actions, saving and restoring.
#pragma once

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "core/canvas.hpp"
#include "core/rows.hpp"
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

  /// The same limits for every number.
  static constexpr Box between(float low, float high) noexcept {
    Box box;
    box.low.fill(low);
    box.high.fill(high);
    return box;
  }
};

/// What a step gives besides the observation.
struct Outcome {
  double reward;
  bool terminated;
};

/// The same for an environment of A agents: each has a reward, and the episode ends for all.
template <std::size_t A>
struct TeamOutcome {
  std::array<double, A> reward;
  bool terminated;
};

/// Whether a bool is one: a byte that was read from a file may hold anything.
inline bool is_flag(const bool& flag) noexcept {
  unsigned char byte = 0;
  std::memcpy(&byte, &flag, sizeof(byte));
  return byte <= 1;
}

/// Whether every number is finite.
template <class... Numbers>
bool are_finite(Numbers... numbers) noexcept {
  return (std::isfinite(numbers) && ...);
}

/// A parameter that users set by name, and what it may be: a number from `low` to `high`, perhaps a whole one.
template <class P>
struct Field {
  std::string_view name;
  double P::* member;
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool whole = false;

  /// Whether the parameter may be `value`; NaN and infinity never.
  [[nodiscard]] bool holds(double value) const noexcept { return std::isfinite(value) && spans(value); }

  /// std::invalid_argument unless `value` lies where the parameter may; the end of a range may be infinite.
  void check(double value) const {
    if (!spans(value)) {
      std::ostringstream text;
      text << name << " must be a " << (whole ? "whole " : "") << "number between " << low << " and " << high
           << ", not " << value;
      throw std::invalid_argument(text.str());
    }
  }

 private:
  [[nodiscard]] bool spans(double value) const noexcept {
    return value >= low && value <= high && (!whole || value == std::floor(value));
  }
};
template <class P>
Field(const char*, double P::*) -> Field<P>;
template <class P>
Field(const char*, double P::*, double, double) -> Field<P>;
template <class P>
Field(const char*, double P::*, double, double, bool) -> Field<P>;

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

/// Which meaning the fields of a state have; environments raise it where that changes at the same size.
template <class E>
inline constexpr int state_version_of = [] {
  if constexpr (requires { E::state_version; }) {
    return static_cast<int>(E::state_version);
  } else {
    return 1;
  }
}();

/// Whether an environment says how many agents it has.
template <class E>
concept IsTeam = requires {
  { E::num_agents } -> std::convertible_to<int>;
};
/// Rows of one environment: its agents.
template <class E>
inline constexpr std::size_t num_agents_of = [] {
  if constexpr (IsTeam<E>) {
    return static_cast<std::size_t>(E::num_agents);
  } else {
    return std::size_t{1};
  }
}();
/// What a team's `step` takes: the actions of all agents, one after another.
template <HasActionSpace E>
using TeamActions = std::span<const ActionElement<E>, num_agents_of<E> * action_size_of<E>>;

template <class E>
concept HasReset = requires(E env, const typename E::Params& params, Pcg64& rng) {
  { env.reset(params, rng) } noexcept -> std::same_as<void>;
};
template <class E>
concept HasValid = IsReplayed<E> || requires(const E env, const typename E::Params& params) {
  { env.valid(params) } noexcept -> std::same_as<bool>;
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
concept HasTeamStep = requires(E env, const typename E::Params& params, TeamActions<E> actions) {
  { env.step(params, actions) } noexcept -> std::same_as<TeamOutcome<num_agents_of<E>>>;
};
template <class E>
concept HasObserve = requires(const E env, std::span<float, obs_size_of<E>> obs) {
  { env.observe(obs) } noexcept -> std::same_as<void>;
};
template <class E>
concept HasTeamObserve = requires(const E env, int agent, std::span<float, obs_size_of<E>> obs) {
  { env.observe(agent, obs) } noexcept -> std::same_as<void>;
};
template <class E>
concept StepsAlone = !IsTeam<E> && HasStep<E> && HasObserve<E>;
template <class E>
concept StepsTogether = IsTeam<E> && (num_agents_of<E> > 0) && HasTeamStep<E> && HasTeamObserve<E>;

/// An environment: a struct that can be reset, stepped and observed.
template <class E>
concept Env = HasId<E> && HasObservationSpace<E> && HasActionSpace<E> && HasLimits<E> && HasParams<E> &&
              HasSavedState<E> && HasReset<E> && HasValid<E> && (StepsAlone<E> || StepsTogether<E>);

/// Optional: a picture of `frame` pixels, RGB, from the top row down.
template <class E>
concept HasPicture = Env<E> && requires(const E env, const typename E::Params& params, std::span<std::uint8_t> rgb) {
  { E::frame } -> std::convertible_to<Frame>;
  { env.render(params, rgb) } noexcept -> std::same_as<void>;
};

/// Optional, for speed: step many rows at once. It must give the bits of `step` and `observe`, row by row, and writes
/// `obs`, `reward` and `terminated` of `out`; the pool does everything else.
template <class E>
concept HasStepBlock =
    Env<E> && !IsTeam<E> &&
    requires(const typename E::Params& params, std::span<E> envs, const ActionElement<E>* actions, const StepOut& out) {
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
  static_assert(HasValid<E>,
                "concept shoal::Env: `bool valid(const Params&) const noexcept` is missing: whether a step may come to "
                "this state, asked when a row is restored from a file");
  if constexpr (IsTeam<E>) {
    static_assert(num_agents_of<E> > 0, "concept shoal::Env: num_agents must be at least 1");
    static_assert(
        HasTeamStep<E>,
        "concept shoal::Env: `TeamOutcome<A> step(const Params&, std::span<const T, A * n> actions) noexcept` "
        "is missing; A is num_agents, T is std::int64_t and n is 1 for Discrete, float and N for Box<N>");
    static_assert(HasTeamObserve<E>,
                  "concept shoal::Env: `void observe(int agent, std::span<float, N>) const noexcept` is missing, with "
                  "the N of observation_space");
  } else {
    static_assert(HasStep<E>,
                  "concept shoal::Env: `Outcome step(const Params&, action) noexcept` is missing; action is "
                  "std::int64_t for Discrete, std::span<const float, N> for Box<N>");
    static_assert(HasObserve<E>,
                  "concept shoal::Env: `void observe(std::span<float, N>) const noexcept` is missing, with the N of "
                  "observation_space");
  }
  if constexpr (requires { E::frame; } || requires { &E::render; }) {
    static_assert(HasPicture<E>,
                  "concept shoal::HasPicture: `static constexpr Frame frame{height, width}` and "
                  "`void render(const Params&, std::span<std::uint8_t>) const noexcept` are expected");
  }
  if constexpr (requires { &E::step_block; }) {
    static_assert(HasStepBlock<E>,
                  "concept shoal::HasStepBlock: `static void step_block(const Params&, std::span<E>, "
                  "const std::int64_t*|const float*, const StepOut&) noexcept` is expected");
  }
  return Env<E>;
}

/// Parameters by name, as users give them; every environment also has `max_episode_steps`.
using ParamMap = std::map<std::string, double, std::less<>>;

/// What is known of an environment before a row of it exists.
struct EnvInfo {
  std::string_view id;
  std::span<const float> obs_low, obs_high;
  int num_actions;  ///< 0: the action is a Box
  std::span<const float> action_low, action_high;
  int max_episode_steps;  ///< 0: no limit
  std::optional<double> reward_threshold;
  ParamMap params;
  int num_agents = 1;
};

template <Env E>
EnvInfo env_info() {
  EnvInfo info{E::id, E::observation_space.low, E::observation_space.high, 0,  {},
               {},    E::max_episode_steps,     E::reward_threshold,       {}, static_cast<int>(num_agents_of<E>)};
  if constexpr (is_discrete<E>) {
    info.num_actions = E::action_space.n;
  } else {
    info.action_low = E::action_space.low;
    info.action_high = E::action_space.high;
  }
  const typename E::Params defaults{};
  for (const auto& field : E::Params::fields()) {
    info.params.emplace(field.name, defaults.*field.member);
  }
  info.params.emplace("max_episode_steps", E::max_episode_steps);
  return info;
}

}  // namespace shoal
