// shoal._native's training: Samples, optimizers, steps on fused losses, and gradients of any output gradient.
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <tuple>

#include "bind/optimizers.hpp"
#include "bind/samples.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

/// A step's arguments, checked.
struct StepArguments {
  StepArguments(const NativePlan& plan, std::string_view name, const NativeSamples& samples, const ArrayIn& index,
                const nb::dict& given, const ArrayOut& stats_out)
      : loss(find_loss(plan.plan().kernels(), plan.net(), name)), settings(loss, given) {
    samples.check_fit(plan.net(), plan.obs_size());
    samples.find_columns(loss, columns);
    const auto* const from = checked_index(index, samples.size());
    const auto least = static_cast<Size>(loss.least_samples(settings.values()));
    if (index.shape(0) < least) {
      throw std::invalid_argument("index must name at least " + std::to_string(least) + " samples, not " +
                                  std::to_string(index.shape(0)));
    }
    batch = samples.pick(from, index.shape(0), columns);
    stats = numbers<double>(stats_out, "stats_out", {static_cast<Size>(loss.num_stats) + 1});
  }

  [[nodiscard]] LossCall call() const noexcept { return {loss, settings.values()}; }

  const LossKernels& loss;
  Settings settings;
  const float* columns[max_loss_members] = {};
  Minibatch batch{};
  double* stats = nullptr;
};

void loss_gradient(NativePlan& plan, std::string_view name, const NativeSamples& samples, const ArrayIn& index,
                   const SettingsDict& settings, const ArrayOut& grad_out, const ArrayOut& stats_out) {
  const StepArguments given(plan, name, samples, index, settings, stats_out);
  auto* const grad = numbers<float>(grad_out, "grad_out", {plan.num_params()});
  const nb::gil_scoped_release released;
  plan.plan().loss_gradient(given.call(), given.batch, grad, given.stats);
}

bool loss_step(NativePlan& plan, std::string_view name, const NativeSamples& samples, const ArrayIn& index,
               const SettingsDict& settings, NativeOptimizer& optimizer, double max_grad_norm,
               const ArrayOut& stats_out) {
  const StepArguments given(plan, name, samples, index, settings, stats_out);
  optimizer.check_fit(plan.num_params());
  const double limit = checked_norm(max_grad_norm);
  const nb::gil_scoped_release released;
  return plan.plan().loss_step(given.call(), given.batch, optimizer.state(), limit, given.stats);
}

/// Rows of observations and which of them a minibatch holds.
struct Picked {
  Picked(const float* rows, Size size, const OptionalArray& chosen)
      : obs(rows),
        index(chosen.has_value() ? checked_index(*chosen, size) : nullptr),
        count(chosen.has_value() ? chosen->shape(0) : size) {
    if (count < 1) {
      throw std::invalid_argument("forward_train needs at least 1 sample");
    }
  }
  const float* obs;
  const std::int32_t* index;
  Size count;
};

Picked pick_rows(const NativeTowers& plan, const ArrayIn& obs, const OptionalArray& index) {
  const Size size = axis(obs, "obs", 2, 0);
  return {numbers<float>(obs, "obs", {size, plan.obs_size()}), size, index};
}

void forward_train(NativeTowers& plan, const Picked& picked, float* logits, float* value) {
  const nb::gil_scoped_release released;
  plan.plan().forward_train(picked.obs, picked.index, static_cast<std::ptrdiff_t>(picked.count), logits, value);
}

void policy_forward_train(NativePlan& plan, const Picked& picked, const ArrayOut& logits_out,
                          const ArrayOut& value_out) {
  auto* const logits = numbers<float>(logits_out, "logits_out", {picked.count, plan.num_outputs()});
  forward_train(plan, picked, logits, numbers<float>(value_out, "value_out", {picked.count}));
}

Size kept_count(NativeTowers& plan) {
  const auto count = static_cast<Size>(plan.plan().kept_count());
  if (count == 0) {
    throw std::invalid_argument("backward needs the activations of forward_train: call that first");
  }
  return count;
}

float* optional_rows(const std::optional<ArrayOut>& array, const char* name, Size rows, Size columns) {
  return array.has_value() ? numbers<float>(*array, name, {rows, columns}) : nullptr;
}

void policy_backward(NativePlan& plan, const ArrayIn& logits_grad, const ArrayIn& value_grad, const ArrayOut& grad_out,
                     const std::optional<ArrayOut>& obs_grad_out) {
  const Size count = kept_count(plan);
  const auto* const logits = numbers<float>(logits_grad, "logits_grad", {count, plan.num_outputs()});
  const auto* const value = numbers<float>(value_grad, "value_grad", {count});
  auto* const grad = numbers<float>(grad_out, "grad_out", {plan.num_params()});
  auto* const obs = optional_rows(obs_grad_out, "obs_grad_out", count, plan.obs_size());
  const nb::gil_scoped_release released;
  plan.plan().backward(static_cast<std::ptrdiff_t>(count), logits, value, grad, obs);
}

void tower_forward(NativeTower& plan, const ArrayIn& obs, const ArrayOut& out) {
  const Size count = axis(obs, "obs", 2, 0);
  const auto* const from = numbers<float>(obs, "obs", {count, plan.obs_size()});
  auto* const to = numbers<float>(out, "out", {count, plan.num_outputs()});
  const nb::gil_scoped_release released;
  plan.plan().forward(from, static_cast<std::ptrdiff_t>(count), to, nullptr);
}

void tower_forward_train(NativeTower& plan, const ArrayIn& obs, const OptionalArray& index, const ArrayOut& out) {
  const Picked picked = pick_rows(plan, obs, index);
  forward_train(plan, picked, numbers<float>(out, "out", {picked.count, plan.num_outputs()}), nullptr);
}

void tower_backward(NativeTower& plan, const ArrayIn& out_grad, const std::optional<ArrayOut>& grad_out,
                    const std::optional<ArrayOut>& obs_grad_out) {
  const Size count = kept_count(plan);
  const auto* const slopes = numbers<float>(out_grad, "out_grad", {count, plan.num_outputs()});
  auto* const grad = grad_out.has_value() ? numbers<float>(*grad_out, "grad_out", {plan.num_params()}) : nullptr;
  auto* const obs = optional_rows(obs_grad_out, "obs_grad_out", count, plan.obs_size());
  const nb::gil_scoped_release released;
  plan.plan().backward(static_cast<std::ptrdiff_t>(count), slopes, nullptr, grad, obs);
}

using Names = std::vector<std::string>;

std::map<std::string, std::tuple<Names, Names, Names, bool>> fused_losses() {
  std::map<std::string, std::tuple<Names, Names, Names, bool>> all;
  for (const LossKernels& loss : losses_of(find_kernels(""))) {
    all.emplace(loss.name, std::tuple{Names(loss.columns, loss.columns + loss.num_columns),
                                      Names(loss.settings, loss.settings + loss.num_settings),
                                      Names(loss.stats, loss.stats + loss.num_stats), loss.of_values});
  }
  return all;
}

void bind_samples(const nb::module_& module) {
  nb::class_<NativeSamples>(module, "Samples",
                            "A rollout's samples, checked once; its arrays are kept alive and not copied.")
      .def(nb::init<const ArrayIn&, const ArrayIn&, const ColumnsDict&, const OptionalArray&,
                    const std::optional<ArrayOut>&>(),
           "obs"_a.noconvert(), "action"_a.noconvert(), "columns"_a, nb::kw_only(), "mask"_a.noconvert() = nb::none(),
           "error"_a.noconvert() = nb::none(),
           "obs: float32 [N, D]. action: int64 [N, K] choices, or float32 [N, K]. columns: float32 [N] by name, what a "
           "loss reads besides. mask: uint8 or bool [N, options], all choices side by side, 0 where one is forbidden. "
           "error: float32 [N], where a loss of a Q-network leaves each sample's error.")
      .def("__len__", &NativeSamples::size);
}

void bind_tower(const nb::module_& module) {
  nb::class_<NativeTower> tower(module, "TowerPlan",
                                "One MLP tower in native code that shares its owner's parameters: a Q-network, a "
                                "critic, an encoder.");
  tower.def(
      "__init__",
      [](NativeTower* self, const ArrayOut& params, int obs_size, const std::vector<int>& hidden, int outputs,
         const std::string& activation, int num_threads, int grad_shards, int act_block, const std::string& kernels) {
        check_sizes({obs_size, outputs}, hidden, act_block, grad_shards);
        new (self) NativeTower(make_tower_net(obs_size, hidden, outputs, activation), params, num_threads, act_block,
                               grad_shards, kernels);
      },
      "params"_a.noconvert(), "obs_size"_a, "hidden"_a, "outputs"_a, "activation"_a, "num_threads"_a, "grad_shards"_a,
      nb::kw_only(), "act_block"_a = 64, "kernels"_a = "");
  tower.def_prop_ro("num_params", &NativeTower::num_params);
  tower.def("forward", &tower_forward, "obs"_a.noconvert(), "out"_a.noconvert(),
            "Outputs [N, O] of observations [N, D].");
  tower.def("forward_train", &tower_forward_train, "obs"_a.noconvert(), "index"_a.noconvert().none(),
            "out"_a.noconvert(), "Outputs [M, O] of the rows that index [M] names; keeps what backward needs.");
  tower.def("backward", &tower_backward, "out_grad"_a.noconvert(), "grad_out"_a.noconvert().none(),
            "obs_grad_out"_a.noconvert() = nb::none(),
            "The parameters' gradient [P], from that of forward_train's outputs [M, O], and the observations' [M, D]: "
            "each if it is given.");
}

}  // namespace

void bind_training(nb::module_& module, nb::class_<NativePlan>& plan) {
  module.def("fused_losses", &fused_losses,
             "The fused losses: name -> the columns that it reads, the settings that it takes, the statistics that it "
             "gives, whether it is one of a Q-network.");
  bind_samples(module);
  bind_optimizers(module);
  bind_tower(module);
  bind_actor_critic(module);
  plan.def("loss_gradient", &loss_gradient, "name"_a, "samples"_a, "index"_a.noconvert(), "settings"_a,
           "grad_out"_a.noconvert(), "stats_out"_a.noconvert(),
           "The gradient of a fused loss over samples[index], unclipped; stats_out as in loss_step.");
  plan.def(
      "loss_step", &loss_step, "name"_a, "samples"_a, "index"_a.noconvert(), "settings"_a, "optimizer"_a,
      "max_grad_norm"_a, "stats_out"_a.noconvert(),
      "One step on a fused loss over samples[index], int32 [M]. stats_out, float64, gets the loss's statistics and "
      "then the gradient's norm. False where that is not finite: then nothing else has changed.");
  plan.def(
      "forward_train",
      [](NativePlan& self, const ArrayIn& obs, const OptionalArray& index, const ArrayOut& logits,
         const ArrayOut& value) { policy_forward_train(self, pick_rows(self, obs, index), logits, value); },
      "obs"_a.noconvert(), "index"_a.noconvert().none(), "logits_out"_a.noconvert(), "value_out"_a.noconvert(),
      "Logits (or means) [M, A] and values [M] of the rows that index [M] names (None: all); keeps what backward "
      "needs. Logits are not masked.");
  plan.def(
      "forward_train",
      [](NativePlan& self, const NativeSamples& samples, const OptionalArray& index, const ArrayOut& logits,
         const ArrayOut& value) {
        samples.check_fit(self.net(), self.obs_size());
        policy_forward_train(self, {samples.obs(), samples.size(), index}, logits, value);
      },
      "samples"_a, "index"_a.noconvert().none(), "logits_out"_a.noconvert(), "value_out"_a.noconvert());
  plan.def("backward", &policy_backward, "logits_grad"_a.noconvert(), "value_grad"_a.noconvert(),
           "grad_out"_a.noconvert(), "obs_grad_out"_a.noconvert() = nb::none(),
           "The parameters' gradient [P], from those of forward_train's logits [M, A] and values [M]. log_std is no "
           "output of the towers: its part is 0.");
}

}  // namespace shoal
