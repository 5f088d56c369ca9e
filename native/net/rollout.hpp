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
#include "net/rollout_steps.hpp"

namespace shoal {

/// `Plan`: a plan's class (MlpPlan, RecurrentPlan) with what it offers a rollout.
template <class Plan>
class Rollout : RolloutSteps<Plan> {
  using Steps = RolloutSteps<Plan>;
  using Steps::at;
  using Steps::gaussian;
  using Steps::net_;
  using Steps::plan_;
  using Steps::slab_;
  using typename Steps::ActMemory;

 public:
  Rollout(Plan& plan, Rows& rows, const Slab& slab, std::uint64_t seed, std::uint32_t stream)
      : Steps(plan, rows.num_rows(), slab, seed, stream), rows_(rows) {}

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
      Steps::refuse(bad);
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
    Steps::require_bounds();
  }

  /// All steps of rows [first, first + count).
  void run_block(std::ptrdiff_t first, std::ptrdiff_t count, ActMemory& memory) noexcept {
    Steps::begin(first, count);
    std::ptrdiff_t num_final = first * slab_.num_steps;
    for (std::ptrdiff_t t = 0; t < slab_.num_steps; ++t) {
      const bool timed = t % timed_every == 0;
      const Clock::time_point begun = timed ? Clock::now() : Clock::time_point{};
      Steps::act(t, first, count, memory);
      const Clock::time_point acted = timed ? Clock::now() : Clock::time_point{};
      if (!step(t, first, count, memory)) {
        return;
      }
      if (timed) {
        acting_ns_ += nanoseconds(begun, acted);
        stepping_ns_ += nanoseconds(acted, Clock::now());
      }
      num_final = Steps::finish_episodes(t, first, count, num_final, memory);
    }
    Steps::end(first, count, memory);
  }

  /// False where the rows refuse an action; nothing is stepped then.
  bool step(std::ptrdiff_t t, std::ptrdiff_t first, std::ptrdiff_t count, ActMemory& memory) noexcept {
    const std::ptrdiff_t here = at(t, first);
    const void* actions = nullptr;
    if (!gaussian()) {
      actions = slab_.choice + here;
    } else {
      Steps::clip_actions(slab_.action + here * plan_.num_actions(), count, memory.action.data());
      actions = memory.action.data();
      const int bad = rows_.bad_action(static_cast<int>(first), static_cast<int>(count), actions);
      if (bad >= 0) {
        int seen = bad_row_.load();
        while (bad < seen && !bad_row_.compare_exchange_weak(seen, bad)) {
        }
        return false;
      }
    }
    double* const reward = memory.reward.data();
    rows_.step_rows(
        static_cast<int>(first), static_cast<int>(count), actions,
        {Steps::next_obs(t, first), reward, slab_.terminated + here, slab_.truncated + here, memory.final_obs.data(),
         slab_.episode_return + here, slab_.episode_length + here, slab_.drawn + here * rows_.num_drawn()});
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      slab_.reward[here + i] = static_cast<float>(reward[i]);
    }
    return true;
  }

  Rows& rows_;
  std::atomic<int> bad_row_{std::numeric_limits<int>::max()};
  std::atomic<std::int64_t> acting_ns_{0};
  std::atomic<std::int64_t> stepping_ns_{0};
};

}  // namespace shoal
