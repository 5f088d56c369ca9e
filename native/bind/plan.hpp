// The C++ side of shoal._native's plans: a plan and the reference that keeps its parameters alive.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bind/arrays.hpp"
#include "net/plan.hpp"

namespace shoal {

using Size = std::size_t;
using OptionalArray = std::optional<ArrayIn>;

inline std::uint32_t checked_stream(std::uint32_t stream) {
  if (stream >> 16 != 0) {
    throw std::invalid_argument("stream must be below 65536, not " + std::to_string(stream));
  }
  return stream;
}

/// Where the actions of `count` rows go.
inline ActOut action_arrays(const Net& heads, const ArrayOut& action_out, const ArrayOut& log_prob_out,
                            const ArrayOut& value_out, Size count) {
  const bool gaussian = heads.head == Head::gaussian;
  const auto actions = static_cast<Size>(heads.num_actions);
  return {gaussian ? nullptr : numbers<std::int64_t>(action_out, "action_out", {count, actions}),
          gaussian ? numbers<float>(action_out, "action_out", {count, actions}) : nullptr,
          numbers<float>(log_prob_out, "log_prob_out", {count}), numbers<float>(value_out, "value_out", {count})};
}

/// The options of `count` rows, or null.
inline const std::uint8_t* mask_of(const Net& heads, const OptionalArray& mask, Size count) {
  if (!mask.has_value()) {
    return nullptr;
  }
  if (heads.head == Head::gaussian) {
    throw std::invalid_argument("mask: a gaussian head has no options to choose among");
  }
  return numbers<std::uint8_t>(*mask, "mask", {count, static_cast<Size>(heads.num_outputs)});
}

/// How often each of `count` rows explores, or null; ValueError where that is not between 0 and 1, or not for this
/// head.
inline const float* epsilon_of(const Net& heads, const OptionalArray& epsilon, Size count) {
  if (!epsilon.has_value()) {
    return nullptr;
  }
  if (heads.head != Head::q_values) {
    throw std::invalid_argument("epsilon: only a head 'q_values' explores so");
  }
  const auto* const from = numbers<float>(*epsilon, "epsilon", {count});
  for (Size i = 0; i < count; ++i) {
    if (!(from[i] >= 0.0F && from[i] <= 1.0F)) {
      throw std::invalid_argument("epsilon[" + std::to_string(i) + "] must lie between 0 and 1");
    }
  }
  return from;
}

/// ValueError for sizes that no array could have been made for, or whose products would wrap.
inline void check_sizes(std::initializer_list<int> sizes, const std::vector<int>& hidden, int act_block,
                        int grad_shards) {
  constexpr int widest = 1 << 27;
  constexpr int most = 1 << 20;
  const auto fits = [](int size) { return size <= widest; };
  if (!std::ranges::all_of(sizes, fits) || !std::ranges::all_of(hidden, fits)) {
    throw std::invalid_argument("a layer may have at most " + std::to_string(widest) + " inputs and outputs");
  }
  if (act_block > most || grad_shards > most) {
    throw std::invalid_argument("act_block and grad_shards may be at most " + std::to_string(most));
  }
}

/// Rows of a rollout that act together; ValueError for agents or rows that no rollout has.
template <class Plan>
int checked_rows_per_block(const Plan& plan, int num_agents, int count) {
  if (num_agents < 1 || count < 0) {
    throw std::invalid_argument("num_agents must be at least 1 and count at least 0, not " +
                                std::to_string(num_agents) + " and " + std::to_string(count));
  }
  return plan.rows_per_block(num_agents, count);
}

/// The sum of a head's choices, or as much as an int holds.
inline int largest(const std::vector<int>& action_nvec) {
  const auto sum = std::accumulate(action_nvec.begin(), action_nvec.end(), std::int64_t{0});
  return static_cast<int>(std::clamp<std::int64_t>(sum, 0, std::numeric_limits<int>::max()));
}

/// The parameters' numbers; ValueError unless there are `count`, before memory is taken for as many.
inline float* checked_params(const ArrayOut& params, std::ptrdiff_t count) {
  return numbers<float>(params, "params", {static_cast<Size>(count)});
}

/// Towers over parameters [num_params] that Python owns.
class NativeTowers {
 public:
  NativeTowers(const Net& net, const ArrayOut& params, std::shared_ptr<SharedTeam> team, int act_block, int grad_shards,
               const std::string& kernels)
      : array_(params),
        plan_(net, checked_params(params, net.num_params), std::move(team), act_block, grad_shards, kernels) {}

  [[nodiscard]] MlpPlan& plan() noexcept { return plan_; }
  [[nodiscard]] const MlpPlan& plan() const noexcept { return plan_; }
  [[nodiscard]] const Net& net() const noexcept { return plan_.net(); }
  [[nodiscard]] Size num_params() const noexcept { return static_cast<Size>(net().num_params); }
  [[nodiscard]] Size obs_size() const noexcept { return static_cast<Size>(net().obs_size); }
  [[nodiscard]] Size num_outputs() const noexcept { return static_cast<Size>(net().num_outputs); }
  [[nodiscard]] Size num_actions() const noexcept { return static_cast<Size>(net().num_actions); }
  [[nodiscard]] bool gaussian() const noexcept { return net().head == Head::gaussian; }

 private:
  ArrayOut array_;
  MlpPlan plan_;
};

/// `_native.MlpPlan`: a policy, an actor and a critic.
class NativePlan : public NativeTowers {
 public:
  NativePlan(const Net& net, const ArrayOut& params, int num_threads, int act_block, int grad_shards,
             const std::string& kernels, bool shared)
      : NativeTowers(net, params, shared ? shared_team(num_threads) : std::make_shared<SharedTeam>(num_threads),
                     act_block, grad_shards, kernels) {}
};

/// `_native.TowerPlan`: one tower. All towers of as many threads share these.
class NativeTower : public NativeTowers {
 public:
  NativeTower(const Net& net, const ArrayOut& params, int num_threads, int act_block, int grad_shards,
              const std::string& kernels)
      : NativeTowers(net, params, shared_team(num_threads), act_block, grad_shards, kernels) {}
};

/// Adds what trains to the module and to its plans.
void bind_training(nanobind::module_& module, nanobind::class_<NativePlan>& plan);
void bind_actor_critic(const nanobind::module_& module);

}  // namespace shoal
