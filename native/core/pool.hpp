// Rows of one environment: time limit, autoreset in the same step, returns and lengths, around any `Env`.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/draw.hpp"
#include "core/env.hpp"
#include "core/played.hpp"

namespace shoal {

template <Env E>
class Pool final : public Rows {
 public:
  static constexpr std::size_t obs_size_v = obs_size_of<E>;
  static constexpr std::size_t action_size_v = action_size_of<E>;
  static constexpr std::size_t agents = num_agents_of<E>;
  using Element = ActionElement<E>;

  /// `num_rows`: of all agents.
  Pool(int num_rows, const ParamMap& params, const std::vector<Draw>& draws)
      : params_{}, limit_(E::max_episode_steps), drawn_(draws, static_cast<std::size_t>(std::max(num_rows, 0))) {
    if (num_rows < 1) {
      throw std::invalid_argument("num_rows must be at least 1, not " + std::to_string(num_rows));
    }
    const auto size = static_cast<std::size_t>(num_rows);
    if (size % agents != 0) {
      throw std::invalid_argument("num_rows must be a multiple of the " + std::to_string(agents) + " agents, not " +
                                  std::to_string(num_rows));
    }
    for (const auto& [name, value] : params) {
      set(name, value);
    }
    if constexpr (requires { params_.refusal(); }) {
      if (const std::string refusal{params_.refusal()}; !refusal.empty()) {
        throw std::invalid_argument(refusal);
      }
    }
    envs_.resize(size / agents);
    rngs_.resize(size / agents);
    tallies_.resize(size);
    lengths_.resize(size);
    if constexpr (IsReplayed<E>) {
      played_.resize(size);
    }
  }

  [[nodiscard]] int num_rows() const noexcept override { return static_cast<int>(lengths_.size()); }
  [[nodiscard]] int num_agents() const noexcept override { return static_cast<int>(agents); }
  [[nodiscard]] int obs_size() const noexcept override { return static_cast<int>(obs_size_v); }
  [[nodiscard]] int action_size() const noexcept override { return static_cast<int>(action_size_v); }
  [[nodiscard]] bool discrete() const noexcept override { return is_discrete<E>; }
  [[nodiscard]] int num_drawn() const noexcept override { return static_cast<int>(drawn_.count()); }
  [[nodiscard]] int grain() const noexcept override {
    if constexpr (requires { E::grain; }) {
      return E::grain;
    }
    return 64;  // whole cache lines of every output
  }

  void reset_rows(int first, std::span<const std::uint64_t> seeds, float* obs) noexcept override {
    for (std::size_t i = 0; i < seeds.size(); i += agents) {
      const auto row = static_cast<std::size_t>(first) + i;
      rngs_[row / agents] = Pcg64(seeds[i]);
      drawn_.seed(row, params_, seeds[i]);
      lengths_[row] = 0;
      begin(row, obs + i * obs_size_v);
    }
  }

  void begin_row(int row, float* obs) noexcept override { begin(static_cast<std::size_t>(row), obs); }

  [[nodiscard]] int bad_action(int first, int count, const void* actions) const noexcept override {
    const auto* action = static_cast<const Element*>(actions);
    const auto size = static_cast<std::size_t>(count);
    if (all_good(action, size)) {
      return -1;
    }
    for (std::size_t i = 0; i < size; ++i) {
      if (!all_good(action + i * action_size_v, 1)) {
        return first + static_cast<int>(i);
      }
    }
    return -1;
  }

  void step_rows(int first, int count, const void* actions, const StepOut& out) noexcept override {
    const auto* action = static_cast<const Element*>(actions);
    for (int done = 0; done < count; done += block_rows) {
      const auto i = static_cast<std::size_t>(done);
      const auto size = static_cast<std::size_t>(std::min(block_rows, count - done));
      const StepOut block{out.obs + i * obs_size_v,
                          out.reward + i,
                          out.terminated + i,
                          out.truncated + i,
                          out.final_obs + i * obs_size_v,
                          out.episode_return + i,
                          out.episode_length + i,
                          out.drawn == nullptr ? nullptr : out.drawn + i * drawn_.count()};
      step_block(static_cast<std::size_t>(first) + i, size, action + i * action_size_v, block);
    }
  }

  [[nodiscard]] std::size_t row_bytes() const noexcept override {
    if constexpr (IsReplayed<E>) {
      std::size_t most = 0;
      for (const Played<E>& played : played_) {
        most = std::max(most, played.num_bytes());
      }
      return drawn_.row_bytes() + most;
    }
    return sizeof(E) + sizeof(Pcg64) + sizeof(double) + sizeof(std::int32_t) + drawn_.row_bytes();
  }
  [[nodiscard]] bool fits(std::size_t bytes) const noexcept override {
    return IsReplayed<E> ? bytes >= drawn_.row_bytes() + Played<E>::head_bytes : bytes == row_bytes();
  }
  [[nodiscard]] std::string layout() const override {
    std::string text(E::id);
    text += IsReplayed<E> ? ", actions" : ", a state of " + std::to_string(sizeof(E)) + " bytes";
    text += ", version " + std::to_string(state_version_of<E>);
    for (const auto& field : E::Params::fields()) {
      text.append(", ").append(field.name);
    }
    return text + drawn_.layout();
  }
  void save_rows(int first, int count, std::byte* to) const noexcept override {
    if constexpr (IsReplayed<E>) {
      const std::size_t bytes = row_bytes();
      std::fill_n(to, static_cast<std::size_t>(count) * bytes, std::byte{});
      for (auto row = static_cast<std::size_t>(first); count > 0; ++row, --count, to += bytes) {
        drawn_.save(row, to);
        played_[row].save(observed(row), tallies_[row], to + drawn_.row_bytes());
      }
      return;
    }
    for (auto row = static_cast<std::size_t>(first); count > 0; ++row, --count) {
      each_part(*this, row, [&to](const auto& part) {
        std::memcpy(to, &part, sizeof(part));
        to += sizeof(part);
      });
    }
  }
  /// Agents of one environment have the same one saved.
  std::vector<int> load_rows(int first, int count, const std::byte* from, std::size_t bytes,
                             const StepOut& out) override {
    std::vector<int> cut;
    for (int row = first; row < first + count; ++row, from += bytes) {
      if constexpr (IsReplayed<E>) {
        if (!play_again(static_cast<std::size_t>(row), from, bytes, out)) {
          cut.push_back(row);
        }
      } else {
        check_saved(row, from);
        each_part(*this, static_cast<std::size_t>(row), [part_from = from](auto& part) mutable {
          std::memcpy(&part, part_from, sizeof(part));
          part_from += sizeof(part);
        });
      }
    }
    return cut;
  }

  [[nodiscard]] Frame frame() const noexcept override {
    if constexpr (HasPicture<E>) {
      return E::frame;
    } else {
      return {0, 0};
    }
  }
  void render_row([[maybe_unused]] int row, [[maybe_unused]] std::span<std::uint8_t> rgb) const noexcept override {
    if constexpr (HasPicture<E>) {
      envs_[static_cast<std::size_t>(row) / agents].render(params_, rgb);
    }
  }

 private:
  static_assert(require_env<E>());
  /// Rows whose inputs and outputs stay in the first-level cache between the passes of a step.
  static constexpr int block_rows = static_cast<int>((256 + agents - 1) / agents * agents);

  typename Played<E>::Obs observed(std::size_t row) const noexcept {
    typename Played<E>::Obs obs;
    envs_[row].observe(obs);
    return obs;
  }

  /// std::invalid_argument unless the bytes that `save_rows` wrote can be a row's.
  void check_saved(int row, const std::byte* from) const {
    E env;
    Pcg64 rng;
    double tally = 0;
    std::int32_t length = 0;
    const auto read = [&from](auto& part) {
      std::memcpy(&part, from, sizeof(part));
      from += sizeof(part);
    };
    read(env);
    read(rng);
    read(tally);
    read(length);
    check_drawn(row, from);
    const bool counts = std::isfinite(tally) && length >= 0 && length < std::numeric_limits<std::int32_t>::max();
    if (!rng.valid() || !counts) {
      throw std::invalid_argument("saved row " + std::to_string(row) +
                                  " has no generator, or a return or length that no episode has");
    }
    if (!env.valid(drawn_.none() ? params_ : drawn_.read(from).params)) {
      throw std::invalid_argument("saved row " + std::to_string(row) + " holds a state that " + std::string(E::id) +
                                  " cannot come to");
    }
  }

  void check_drawn(int row, const std::byte* from) const {
    if (!drawn_.can_load(from)) {
      throw std::invalid_argument("saved row " + std::to_string(row) +
                                  " holds drawn parameters that the environment cannot have");
    }
  }

  /// Brings a saved row back by playing its episode again; where that comes to something else, cuts it: false.
  bool play_again(std::size_t row, const std::byte* from, std::size_t bytes, const StepOut& out) {
    typename Played<E>::Obs last, obs;
    double tally = 0;
    Played<E> saved;
    saved.load(from + drawn_.row_bytes(), bytes - drawn_.row_bytes(), last, tally);
    if (!all_good(saved.actions.data(), saved.num_steps())) {
      throw std::invalid_argument("saved row " + std::to_string(row) + " holds an action outside the action space");
    }
    check_drawn(static_cast<int>(row), from);
    drawn_.load(row, from);
    rngs_[row] = saved.start;
    start(row, obs.data());
    bool ended = false;
    for (std::size_t i = 0; i < saved.num_steps() && !ended; ++i) {
      const Outcome outcome = step_one(row, saved.actions.data() + i * action_size_v);
      tallies_[row] += outcome.reward;
      lengths_[row] += 1;
      ended = outcome.terminated;
    }
    obs = observed(row);
    if (!ended && tallies_[row] == tally && std::memcmp(&obs, &last, sizeof(obs)) == 0) {
      return true;
    }
    std::copy(last.begin(), last.end(), out.final_obs + row * obs_size_v);
    out.truncated[row] = 1;
    out.episode_return[row] = tally;
    out.episode_length[row] = static_cast<std::int64_t>(saved.num_steps());
    lengths_[row] = static_cast<std::int32_t>(saved.num_steps());
    begin(row, out.obs + row * obs_size_v);
    return false;
  }

  template <class Self, class F>
  static void each_part(Self& self, std::size_t row, F&& use) noexcept {
    use(self.envs_[row / agents]);
    use(self.rngs_[row / agents]);
    use(self.tallies_[row]);
    use(self.lengths_[row]);
    if (!self.drawn_.none()) {
      use(self.drawn_[row]);
    }
  }

  void set(std::string_view name, double value) {
    if (!std::isfinite(value)) {
      throw std::invalid_argument(std::string(name) + " must be finite, not " + std::to_string(value));
    }
    if (name == "max_episode_steps") {
      if (value < 0 || value > std::numeric_limits<std::int32_t>::max() || value != std::floor(value)) {
        throw std::invalid_argument("max_episode_steps must be a whole number of steps, 0 for no limit, not " +
                                    std::to_string(value));
      }
      limit_ = static_cast<std::int32_t>(value);
      return;
    }
    const auto field = find_field<E>(name);
    field.check(value);
    params_.*field.member = value;
  }

  /// One pass without branches, which the compiler turns into vector instructions.
  static bool all_good(const Element* action, std::size_t count) noexcept {
    if constexpr (is_discrete<E>) {
      constexpr auto last = static_cast<std::uint64_t>(E::action_space.n - 1);
      std::uint64_t sign = 0;  // the top bit is set by an action below 0 or above the last
      for (std::size_t i = 0; i < count; ++i) {
        const auto value = static_cast<std::uint64_t>(action[i]);
        sign |= value | (last - value);
      }
      return sign >> 63 == 0;
    } else {
      bool good = true;
      for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t j = 0; j < action_size_v; ++j) {
          const float value = action[i * action_size_v + j];
          good &= static_cast<bool>((value >= E::action_space.low[j]) & (value <= E::action_space.high[j]));
        }
      }
      return good;
    }
  }

  /// Of the environment whose first row is `row`.
  [[nodiscard]] const typename E::Params& params_of(std::size_t row) const noexcept {
    return drawn_.none() ? params_ : drawn_[row].params;
  }

  /// Begins an episode of the environment whose first row is `row`.
  void begin(std::size_t row, float* obs) noexcept {
    drawn_.draw(row, lengths_[row]);
    start(row, obs);
  }

  /// Begins an episode with the parameters that the row has.
  void start(std::size_t row, float* obs) noexcept {
    if constexpr (IsReplayed<E>) {
      static_assert(agents == 1, "an environment of several agents must be trivially copyable");
      played_[row].begin(rngs_[row]);
    }
    envs_[row / agents].reset(params_of(row), rngs_[row / agents]);
    observe(row, obs);
    std::fill_n(&tallies_[row], agents, 0);
    std::fill_n(&lengths_[row], agents, 0);
  }

  void observe(std::size_t row, float* obs) const noexcept {
    if constexpr (IsTeam<E>) {
      for (std::size_t agent = 0; agent < agents; ++agent) {
        const std::span<float, obs_size_v> own(obs + agent * obs_size_v, obs_size_v);
        envs_[row / agents].observe(static_cast<int>(agent), own);
      }
    } else {
      envs_[row].observe(std::span<float, obs_size_v>(obs, obs_size_v));
    }
  }

  void step_block(std::size_t row, std::size_t count, const Element* actions, const StepOut& out) noexcept {
    bool stepped = false;
    if constexpr (HasStepBlock<E>) {
      if (drawn_.none()) {
        E::step_block(params_, std::span(envs_).subspan(row, count), actions, out);
        stepped = true;
      }
    }
    if constexpr (IsTeam<E>) {
      for (std::size_t i = 0; i < count; i += agents) {
        const TeamActions<E> team(actions + i * action_size_v, agents * action_size_v);
        const TeamOutcome<agents> outcome = envs_[(row + i) / agents].step(params_of(row + i), team);
        observe(row + i, out.obs + i * obs_size_v);
        std::copy(outcome.reward.begin(), outcome.reward.end(), out.reward + i);
        std::fill_n(out.terminated + i, agents, static_cast<std::uint8_t>(outcome.terminated));
      }
    } else if (!stepped) {
      for (std::size_t i = 0; i < count; ++i) {
        const Outcome outcome = step_one(row + i, actions + i * action_size_v);
        observe(row + i, out.obs + i * obs_size_v);
        out.reward[i] = outcome.reward;
        out.terminated[i] = static_cast<std::uint8_t>(outcome.terminated);
      }
    }
    count_steps(&tallies_[row], &lengths_[row], count, out);
    // Eight flags are one word: rows that go on cost nothing here.
    std::size_t i = 0;
    for (; agents == 1 && i + 8 <= count; i += 8) {
      std::uint64_t terminated = 0;
      std::uint64_t truncated = 0;
      std::memcpy(&terminated, out.terminated + i, sizeof(terminated));
      std::memcpy(&truncated, out.truncated + i, sizeof(truncated));
      if ((terminated | truncated) != 0) {
        end_episodes(row + i, i, i + 8, out);
      }
    }
    end_episodes(row + i, i, count, out);
  }

  Outcome step_one(std::size_t row, const Element* action) noexcept {
    if constexpr (IsReplayed<E>) {
      played_[row].add(action);
    }
    const auto given = [action]() -> ActionOf<E> {
      if constexpr (is_discrete<E>) {
        return *action;
      } else {
        return ActionOf<E>(action, action_size_v);
      }
    }();
    if constexpr (HasRandomStep<E>) {
      return envs_[row].step(params_of(row), given, rngs_[row]);
    } else {
      return envs_[row].step(params_of(row), given);
    }
  }

  void count_steps(double* __restrict tally, std::int32_t* __restrict length, std::size_t count,
                   const StepOut& out) const noexcept {
    const double* __restrict reward = out.reward;
    std::uint8_t* __restrict truncated = out.truncated;
    const std::int32_t limit = limit_ > 0 ? limit_ : std::numeric_limits<std::int32_t>::max();
    for (std::size_t i = 0; i < count; ++i) {
      tally[i] += reward[i];
    }
    for (std::size_t i = 0; i < count; ++i) {
      length[i] += 1;
      truncated[i] = static_cast<std::uint8_t>(length[i] >= limit);
    }
  }

  /// Of the block's rows [from, to), of which the first is `row` of the pool: hands over each ended episode and begins
  /// the next one with the row's own generator, which is never seeded again.
  [[gnu::noinline]] void end_episodes(std::size_t row, std::size_t from, std::size_t to, const StepOut& out) noexcept {
    for (std::size_t i = from; i < to; i += agents, row += agents) {
      if ((out.terminated[i] | out.truncated[i]) != 0) {
        float* obs = out.obs + i * obs_size_v;
        std::copy_n(obs, agents * obs_size_v, out.final_obs + i * obs_size_v);
        std::copy_n(&tallies_[row], agents, out.episode_return + i);
        std::copy_n(&lengths_[row], agents, out.episode_length + i);
        for (std::size_t agent = 0; agent < agents; ++agent) {
          drawn_.write(row, out.drawn == nullptr ? nullptr : out.drawn + (i + agent) * drawn_.count());
        }
        begin(row, obs);
      }
    }
  }

  typename E::Params params_;
  std::int32_t limit_;
  Drawn<E> drawn_;  ///< parameters of single rows, where episodes draw some
  std::vector<E> envs_;
  std::vector<Pcg64> rngs_;
  std::vector<double> tallies_;        ///< rewards since the episode's start
  std::vector<std::int32_t> lengths_;  ///< steps since the episode's start
  std::vector<Played<E>> played_;      ///< empty where states are copied
};

}  // namespace shoal
