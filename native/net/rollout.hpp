// A whole rollout in one call: blocks of rows act, step and record on one thread each, without any barrier between
// steps.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/rows.hpp"
#include "net/plan.hpp"

namespace shoal {

/// The slab that a rollout fills, [T, B] in all but `final_obs`, and what it carries from one rollout to the next.
struct Slab {
  std::ptrdiff_t num_steps;
  float* current_obs;
  std::uint8_t* current_start;
  std::int64_t* row_step;
  const std::int64_t* row_numbers;  ///< in the noise
  float* obs;
  std::uint8_t* start;
  std::int64_t* choice;  ///< of a head that chooses
  float* action;         ///< of a Gaussian head; null otherwise
  float* log_prob;
  float* value;
  float* next_value;
  float* reward;
  std::uint8_t* terminated;
  std::uint8_t* truncated;
  std::int32_t* final_index;
  float* final_obs;  ///< [T * B]: the block that starts at row r fills from r * T on
  double* episode_return;
  std::int64_t* episode_length;
  double* drawn;                   ///< [T, B, num_drawn]
  Memory memory;                   ///< of all rows: before the rollout, then after it
  const float* epsilon = nullptr;  ///< how often each row of a Q-network explores [B]; null: never
};

/// `Plan`: a plan's class (MlpPlan, RecurrentPlan) with what it offers a rollout.
template <class Plan>
class Rollout {
  using ActMemory = typename Plan::ActMemory;

 public:
  Rollout(Plan& plan, Rows& rows, const Slab& slab, std::uint64_t seed, std::uint32_t stream)
      : plan_(plan), net_(plan.net_), rows_(rows), slab_(slab), seed_(seed), stream_(stream) {}

  /// Runs the plan's policy on all rows for slab.num_steps steps. std::invalid_argument where it does not fit the rows
  /// or chooses an action that they refuse. Returns the share of the time in which the rows stepped, by a sample of
  /// the steps.
  double run() {
    const std::scoped_lock lock(plan_.mutex_);
    check_fit();
    plan_.begin_acting();
    const std::ptrdiff_t count = rows_.num_rows();
    const std::ptrdiff_t size = plan_.rows_per_block(rows_.num_agents(), count);
    plan_.team_.run(static_cast<int>((count + size - 1) / size), [&](int block) {
      const typename ActPool<ActMemory>::Lease memory(plan_.act_pool_);
      const std::ptrdiff_t first = block * size;
      run_block(first, std::min(size, count - first), *memory);
    });
    const int bad = bad_row_.load();
    if (bad != std::numeric_limits<int>::max()) {
      throw std::invalid_argument("row " + std::to_string(bad) +
                                  ": the policy chose an action that is not a number; are its parameters finite?");
    }
    const auto stepping = static_cast<double>(stepping_ns_.load());
    return stepping / std::max(stepping + static_cast<double>(acting_ns_.load()), 1.0);
  }

 private:
  using Clock = std::chrono::steady_clock;

  /// Of so many steps one is timed: reading the clock takes as long as stepping a few light rows.
  static constexpr std::ptrdiff_t timed_every = 8;

  static std::int64_t nanoseconds(Clock::time_point from, Clock::time_point to) noexcept {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count();
  }

  [[nodiscard]] bool gaussian() const noexcept { return slab_.action != nullptr; }
  [[nodiscard]] std::ptrdiff_t at(std::ptrdiff_t t, std::ptrdiff_t row) const noexcept {
    return t * rows_.num_rows() + row;
  }

  void check_fit() const {
    if (rows_.obs_size() != net_.obs_size || rows_.action_size() != plan_.num_actions() ||
        rows_.discrete() == gaussian()) {
      throw std::invalid_argument("pool: its rows have " + std::to_string(rows_.obs_size()) + " observed numbers and " +
                                  (rows_.discrete() ? "discrete" : "continuous") + " actions of size " +
                                  std::to_string(rows_.action_size()) + ", the plan has " +
                                  std::to_string(net_.obs_size) + " and " + (gaussian() ? "continuous" : "discrete") +
                                  " ones of size " + std::to_string(plan_.num_actions()));
    }
    if (plan_.act_block_ % rows_.num_agents() != 0 && plan_.act_block_ < rows_.num_rows()) {
      throw std::invalid_argument("pool: blocks of " + std::to_string(plan_.act_block_) + " rows cut environments of " +
                                  std::to_string(rows_.num_agents()) + " agents in two");
    }
    const std::int64_t last = plan_.action_nvec()[0] - 1;
    if (!gaussian() && rows_.bad_action(0, 1, &last) >= 0) {
      throw std::invalid_argument("pool: its rows refuse action " + std::to_string(last) +
                                  ", which the plan can choose");
    }
    if (gaussian() && plan_.action_low_.empty()) {
      throw std::invalid_argument("plan: call set_action_bounds before a rollout with continuous actions");
    }
  }

  /// All steps of rows [first, first + count).
  void run_block(std::ptrdiff_t first, std::ptrdiff_t count, ActMemory& memory) noexcept {
    const std::size_t obs_bytes = static_cast<std::size_t>(count * net_.obs_size) * sizeof(float);
    std::memcpy(slab_.obs + first * net_.obs_size, slab_.current_obs + first * net_.obs_size, obs_bytes);
    std::ptrdiff_t num_final = first * slab_.num_steps;
    for (std::ptrdiff_t t = 0; t < slab_.num_steps; ++t) {
      const bool timed = t % timed_every == 0;
      const Clock::time_point begun = timed ? Clock::now() : Clock::time_point{};
      act(t, first, count, memory);
      if (t > 0) {
        pass_values(t - 1, first, count, slab_.value + at(t, first));
      }
      const Clock::time_point acted = timed ? Clock::now() : Clock::time_point{};
      if (!step(t, first, count, memory)) {
        return;
      }
      if (timed) {
        acting_ns_ += nanoseconds(begun, acted);
        stepping_ns_ += nanoseconds(acted, Clock::now());
      }
      num_final = finish_episodes(t, first, count, num_final, memory);
    }
    plan_.value_rows(slab_.current_obs + first * net_.obs_size, nullptr, count, memory, memory.value.data(),
                     plan_.memory_from(slab_.memory, first));
    pass_values(slab_.num_steps - 1, first, count, memory.value.data());
  }

  void act(std::ptrdiff_t t, std::ptrdiff_t first, std::ptrdiff_t count, ActMemory& memory) noexcept {
    const std::ptrdiff_t here = at(t, first);
    std::memcpy(slab_.start + here, slab_.current_start + first, static_cast<std::size_t>(count));
    const float* const epsilon = slab_.epsilon == nullptr ? nullptr : slab_.epsilon + first;
    const Noise noise{seed_, stream_, slab_.row_numbers + first, slab_.row_step + first, false, epsilon};
    const std::ptrdiff_t actions = here * plan_.num_actions();
    const ActOut out{gaussian() ? nullptr : slab_.choice + actions, gaussian() ? slab_.action + actions : nullptr,
                     slab_.log_prob + here, slab_.value + here};
    plan_.act_rows(slab_.obs + here * net_.obs_size, slab_.start + here, count, noise, nullptr, memory, out,
                   plan_.memory_from(slab_.memory, first));
    for (std::ptrdiff_t i = first; i < first + count; ++i) {
      slab_.row_step[i] = static_cast<std::int64_t>(static_cast<std::uint64_t>(slab_.row_step[i]) + 1);
    }
  }

  /// False where the rows refuse an action; nothing is stepped then.
  bool step(std::ptrdiff_t t, std::ptrdiff_t first, std::ptrdiff_t count, ActMemory& memory) noexcept {
    const std::ptrdiff_t here = at(t, first);
    const void* actions = nullptr;
    if (!gaussian()) {
      actions = slab_.choice + here;
    } else {
      clip_actions(slab_.action + here * plan_.num_actions(), count, memory.action.data());
      actions = memory.action.data();
      const int bad = rows_.bad_action(static_cast<int>(first), static_cast<int>(count), actions);
      if (bad >= 0) {
        int seen = bad_row_.load();
        while (bad < seen && !bad_row_.compare_exchange_weak(seen, bad)) {
        }
        return false;
      }
    }
    float* const next_obs = t + 1 < slab_.num_steps ? slab_.obs + at(t + 1, first) * net_.obs_size
                                                    : slab_.current_obs + first * net_.obs_size;
    double* const reward = memory.reward.data();
    rows_.step_rows(static_cast<int>(first), static_cast<int>(count), actions,
                    {next_obs, reward, slab_.terminated + here, slab_.truncated + here, memory.final_obs.data(),
                     slab_.episode_return + here, slab_.episode_length + here, slab_.drawn + here * rows_.num_drawn()});
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      slab_.reward[here + i] = static_cast<float>(reward[i]);
    }
    return true;
  }

  void clip_actions(const float* from, std::ptrdiff_t count, float* to) const noexcept {
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      for (int d = 0; d < plan_.num_actions(); ++d) {
        const float low = plan_.action_low_[static_cast<std::size_t>(d)];
        const float high = plan_.action_high_[static_cast<std::size_t>(d)];
        const float x = from[i * plan_.num_actions() + d];
        to[i * plan_.num_actions() + d] = x < low ? low : (x > high ? high : x);
      }
    }
  }

  /// Keeps the final observations of ended rows from place `place` on, and gives truncated rows their value.
  /// Returns the next free place.
  std::ptrdiff_t finish_episodes(std::ptrdiff_t t, std::ptrdiff_t first, std::ptrdiff_t count, std::ptrdiff_t place,
                                 ActMemory& memory) noexcept {
    const std::ptrdiff_t here = at(t, first);
    const std::ptrdiff_t from = place;
    bool any_truncated = false;
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      const bool terminated = slab_.terminated[here + i] != 0;
      const bool truncated = slab_.truncated[here + i] != 0;
      const bool ended = terminated || truncated;
      slab_.current_start[first + i] = ended ? 1 : 0;
      slab_.final_index[here + i] = ended ? static_cast<std::int32_t>(place) : -1;
      if (ended) {
        std::memcpy(slab_.final_obs + place * net_.obs_size, memory.final_obs.data() + i * net_.obs_size,
                    static_cast<std::size_t>(net_.obs_size) * sizeof(float));
        slab_.next_value[here + i] = 0.0F;
        any_truncated = any_truncated || !terminated;
        memory.ended.data()[place - from] = static_cast<std::int32_t>(i);
        ++place;
      }
    }
    if (any_truncated) {
      plan_.value_rows(slab_.final_obs + from * net_.obs_size, memory.ended.data(), place - from, memory,
                       memory.value.data(), plan_.memory_from(slab_.memory, first));
      for (std::ptrdiff_t i = 0; i < count; ++i) {
        if (slab_.final_index[here + i] >= 0 && slab_.terminated[here + i] == 0) {
          slab_.next_value[here + i] = memory.value.data()[slab_.final_index[here + i] - from];
        }
      }
    }
    return place;
  }

  /// The values of the observations after step t, where it did not end an episode.
  void pass_values(std::ptrdiff_t t, std::ptrdiff_t first, std::ptrdiff_t count, const float* value) noexcept {
    const std::ptrdiff_t here = at(t, first);
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      slab_.next_value[here + i] = slab_.final_index[here + i] >= 0 ? slab_.next_value[here + i] : value[i];
    }
  }

  Plan& plan_;
  const decltype(Plan::net_)& net_;
  Rows& rows_;
  Slab slab_;
  std::uint64_t seed_;
  std::uint32_t stream_;
  std::atomic<int> bad_row_{std::numeric_limits<int>::max()};
  std::atomic<std::int64_t> acting_ns_{0};
  std::atomic<std::int64_t> stepping_ns_{0};
};

}  // namespace shoal
