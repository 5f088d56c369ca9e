// shoal._native's ActorCritic: an actor beside critics, towers all of them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bind/plan.hpp"
#include "net/actor_critic.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

/// The towers are kept alive; one call at a time.
class NativeActorCritic {
 public:
  NativeActorCritic(const nb::object& actor, const nb::list& critics, int action_size)
      : actor_(actor), critics_(critics), plan_(tower(actor), towers(critics), action_size) {
    if (action_size < 1) {
      throw std::invalid_argument("action_size must be at least 1, not " + std::to_string(action_size));
    }
    for (const MlpPlan* critic : towers(critics)) {
      if (critic->net().obs_size != towers(critics)[0]->net().obs_size || critic->net().num_outputs != 1) {
        throw std::invalid_argument("critics must take equal inputs and have 1 output each");
      }
    }
    if (plan_.critic_obs_size() < 0) {
      throw std::invalid_argument("critics take fewer numbers than an action has");
    }
  }

  /// ValueError unless the actor has so many outputs for each number of an action.
  void require_outputs(int each) const {
    if (plan_.actor_outputs() != each * plan_.action_size()) {
      throw std::invalid_argument("the actor has " + std::to_string(plan_.actor_outputs()) +
                                  " outputs for actions of " + std::to_string(plan_.action_size()) +
                                  " numbers; this takes " + std::to_string(each) + " for each");
    }
  }

  [[nodiscard]] Observed observed(const ArrayIn& actor_obs, const ArrayIn& critic_obs) const {
    const Size count = axis(actor_obs, "actor_obs", 2, 0);
    if (count < 1) {
      throw std::invalid_argument("actor_obs must hold at least 1 sample");
    }
    return {numbers<float>(actor_obs, "actor_obs", {count, static_cast<Size>(plan_.actor_obs_size())}),
            numbers<float>(critic_obs, "critic_obs", {count, static_cast<Size>(plan_.critic_obs_size())}),
            static_cast<std::ptrdiff_t>(count)};
  }

  [[nodiscard]] const float* actions(const ArrayIn& array, const char* name, std::ptrdiff_t count) const {
    return numbers<float>(array, name, {static_cast<Size>(count), static_cast<Size>(plan_.action_size())});
  }

  /// work(plan) without Python's lock, alone.
  template <class Work>
  void run(Work&& work) {
    const nb::gil_scoped_release released;
    const std::scoped_lock lock(mutex_);
    work(plan_);
  }

  [[nodiscard]] const ActorCritic& plan() const noexcept { return plan_; }

 private:
  static MlpPlan* tower(const nb::handle& object) { return &nb::cast<NativeTower&>(object).plan(); }
  static std::vector<MlpPlan*> towers(const nb::list& critics) {
    std::vector<MlpPlan*> plans;
    for (const nb::handle critic : critics) {
      plans.push_back(tower(critic));
    }
    if (plans.empty()) {
      throw std::invalid_argument("critics must be at least 1");
    }
    return plans;
  }

  nb::object actor_;
  nb::list critics_;
  ActorCritic plan_;
  std::mutex mutex_;
};

void soft_values(NativeActorCritic& self, const ArrayIn& actor_obs, const ArrayIn& critic_obs, const ArrayIn& noise,
                 float temperature, const ArrayOut& value_out) {
  self.require_outputs(2);
  const Observed obs = self.observed(actor_obs, critic_obs);
  const float* const drawn = self.actions(noise, "noise", obs.count);
  auto* const value = numbers<float>(value_out, "value_out", {static_cast<Size>(obs.count)});
  self.run([&](ActorCritic& plan) { plan.soft_values(obs, drawn, temperature, value); });
}

void smoothed_values(NativeActorCritic& self, const ArrayIn& actor_obs, const ArrayIn& critic_obs, const ArrayIn& noise,
                     float deviation, float clip, const ArrayOut& value_out) {
  self.require_outputs(1);
  if (!(clip >= 0.0F)) {
    throw std::invalid_argument("clip must be at least 0, not " + std::to_string(clip));
  }
  const Observed obs = self.observed(actor_obs, critic_obs);
  const float* const drawn = self.actions(noise, "noise", obs.count);
  auto* const value = numbers<float>(value_out, "value_out", {static_cast<Size>(obs.count)});
  self.run([&](ActorCritic& plan) { plan.smoothed_values(obs, drawn, deviation, clip, value); });
}

void critics_gradient(NativeActorCritic& self, const ArrayIn& obs, const ArrayIn& action, bool squash,
                      const ArrayIn& target, const ArrayIn& weight, const ArrayOut& grad_out, const ArrayOut& error_out,
                      const ArrayOut& stats_out) {
  const Size count = axis(obs, "obs", 2, 0);
  if (count < 1) {
    throw std::invalid_argument("obs must hold at least 1 sample");
  }
  const float* const from = numbers<float>(obs, "obs", {count, static_cast<Size>(self.plan().critic_obs_size())});
  const float* const taken = self.actions(action, "action", static_cast<std::ptrdiff_t>(count));
  const float* const learned = numbers<float>(target, "target", {count});
  const float* const weights = numbers<float>(weight, "weight", {count});
  auto* const grad = numbers<float>(grad_out, "grad_out", {static_cast<Size>(self.plan().critic_params())});
  auto* const error = numbers<float>(error_out, "error_out", {count});
  auto* const stats = numbers<double>(stats_out, "stats_out", {2});
  self.run([&](ActorCritic& plan) {
    plan.critics_gradient(from, taken, squash, static_cast<std::ptrdiff_t>(count), learned, weights, grad, error,
                          stats);
  });
}

void soft_gradient(NativeActorCritic& self, const ArrayIn& actor_obs, const ArrayIn& critic_obs, const ArrayIn& noise,
                   float temperature, const ArrayOut& grad_out, const ArrayOut& stats_out) {
  self.require_outputs(2);
  const Observed obs = self.observed(actor_obs, critic_obs);
  const float* const drawn = self.actions(noise, "noise", obs.count);
  auto* const grad = numbers<float>(grad_out, "grad_out", {static_cast<Size>(self.plan().actor_params())});
  auto* const stats = numbers<double>(stats_out, "stats_out", {2});
  self.run([&](ActorCritic& plan) { plan.soft_gradient(obs, drawn, temperature, grad, stats); });
}

void deterministic_gradient(NativeActorCritic& self, const ArrayIn& actor_obs, const ArrayIn& critic_obs,
                            const ArrayOut& grad_out, const ArrayOut& stats_out) {
  self.require_outputs(1);
  const Observed obs = self.observed(actor_obs, critic_obs);
  auto* const grad = numbers<float>(grad_out, "grad_out", {static_cast<Size>(self.plan().actor_params())});
  auto* const stats = numbers<double>(stats_out, "stats_out", {1});
  self.run([&](ActorCritic& plan) { plan.deterministic_gradient(obs, grad, stats); });
}

}  // namespace

void bind_actor_critic(const nb::module_& module) {
  nb::class_<NativeActorCritic> bound(module, "ActorCritic",
                                      "An actor's tower beside critics' towers, which are called with an observation "
                                      "and an action in [-1, 1] side by side.");
  bound.def(nb::init<const nb::object&, const nb::list&, int>(), "actor"_a, "critics"_a, "action_size"_a);
  bound.def("soft_values", &soft_values, "actor_obs"_a.noconvert(), "critic_obs"_a.noconvert(), "noise"_a.noconvert(),
            "temperature"_a, "value_out"_a.noconvert(),
            "value [N] = min Q(s, a) - temperature * log pi(a | s), a of the noise [N, D].");
  bound.def("smoothed_values", &smoothed_values, "actor_obs"_a.noconvert(), "critic_obs"_a.noconvert(),
            "noise"_a.noconvert(), "deviation"_a, "clip"_a, "value_out"_a.noconvert(),
            "value [N] = min Q(s, a), a = clip(tanh(actor) + clip(deviation * noise, -clip, clip), -1, 1).");
  bound.def("critics_gradient", &critics_gradient, "obs"_a.noconvert(), "action"_a.noconvert(), "squash"_a,
            "target"_a.noconvert(), "weight"_a.noconvert(), "grad_out"_a.noconvert(), "error_out"_a.noconvert(),
            "stats_out"_a.noconvert(),
            "The gradient [P] of the mean of weight / 2 * sum (Q - target)^2; errors [N], a mean over critics; stats: "
            "the loss and the mean value. squash: actions [N, D] come before the tanh.");
  bound.def("soft_gradient", &soft_gradient, "actor_obs"_a.noconvert(), "critic_obs"_a.noconvert(),
            "noise"_a.noconvert(), "temperature"_a, "grad_out"_a.noconvert(), "stats_out"_a.noconvert(),
            "The actor's gradient [P] of the mean of temperature * log pi(a | s) - min Q(s, a); stats: the loss and "
            "the entropy.");
  bound.def("deterministic_gradient", &deterministic_gradient, "actor_obs"_a.noconvert(), "critic_obs"_a.noconvert(),
            "grad_out"_a.noconvert(), "stats_out"_a.noconvert(),
            "The actor's gradient [P] of the mean of -Q_1(s, tanh(actor)); stats: the loss.");
}

}  // namespace shoal
