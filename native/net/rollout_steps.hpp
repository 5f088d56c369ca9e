// What lies between two steps of a rollout's rows, whoever steps them: acting, and what an episode's end leaves behind.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

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
class RolloutSteps {
 public:
  RolloutSteps(Plan& plan, std::ptrdiff_t num_rows, const Slab& slab, std::uint64_t seed, std::uint32_t stream)
      : plan_(plan), net_(plan.net_), slab_(slab), num_rows_(num_rows), seed_(seed), stream_(stream) {}

 protected:
  using ActMemory = typename Plan::ActMemory;

  [[nodiscard]] bool gaussian() const noexcept { return slab_.action != nullptr; }
  [[nodiscard]] std::ptrdiff_t at(std::ptrdiff_t t, std::ptrdiff_t row) const noexcept { return t * num_rows_ + row; }

  void require_bounds() const {
    if (gaussian() && plan_.action_low_.empty()) {
      throw std::invalid_argument("plan: call set_action_bounds before a rollout with continuous actions");
    }
  }

  [[noreturn]] static void refuse(std::ptrdiff_t bad_row) {
    throw std::invalid_argument("row " + std::to_string(bad_row) +
                                ": the policy chose an action that is not a number; are its parameters finite?");
  }

  /// What the rows see first.
  void begin(std::ptrdiff_t first, std::ptrdiff_t count) const noexcept {
    const std::size_t obs_bytes = static_cast<std::size_t>(count * net_.obs_size) * sizeof(float);
    std::memcpy(slab_.obs + first * net_.obs_size, slab_.current_obs + first * net_.obs_size, obs_bytes);
  }

  /// Where the rows write what they see after step t.
  [[nodiscard]] float* next_obs(std::ptrdiff_t t, std::ptrdiff_t first) const noexcept {
    return t + 1 < slab_.num_steps ? slab_.obs + at(t + 1, first) * net_.obs_size
                                   : slab_.current_obs + first * net_.obs_size;
  }

  /// The values of what the rows see after the last step.
  void end(std::ptrdiff_t first, std::ptrdiff_t count, ActMemory& memory) noexcept {
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
    if (t > 0) {
      pass_values(t - 1, first, count, slab_.value + here);
    }
  }

  /// A Gaussian's actions as the environment takes them.
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
  Slab slab_;
  std::ptrdiff_t num_rows_;
  std::uint64_t seed_;
  std::uint32_t stream_;
};

}  // namespace shoal
