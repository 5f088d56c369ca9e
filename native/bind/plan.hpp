// The C++ side of shoal._native's plans: a plan and the reference that keeps its parameters alive.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bind/arrays.hpp"
#include "net/plan.hpp"

namespace shoal {

using Size = std::size_t;
using OptionalArray = std::optional<ArrayIn>;

/// Towers over parameters [num_params] that Python owns.
class NativeTowers {
 public:
  NativeTowers(const Net& net, const ArrayOut& params, int num_threads, int act_block, int grad_shards,
               const std::string& kernels)
      : array_(params), plan_(net, static_cast<float*>(params.data()), num_threads, act_block, grad_shards, kernels) {
    numbers<float>(params, "params", {num_params()});
  }

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
  using NativeTowers::NativeTowers;
};

/// `_native.TowerPlan`: one tower.
class NativeTower : public NativeTowers {
 public:
  using NativeTowers::NativeTowers;
};

/// Adds what trains to the module and to its plans.
void bind_training(nanobind::module_& module, nanobind::class_<NativePlan>& plan);

}  // namespace shoal
