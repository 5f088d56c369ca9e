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
#include "bind/plan.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

std::string listed(std::span<const char* const> names) {
  std::string text;
  for (const char* name : names) {
    text += (text.empty() ? "" : ", ") + std::string(name);
  }
  return text;
}

std::span<const LossKernels> losses_of(const Kernels& kernels) {
  return {kernels.losses, static_cast<Size>(kernels.num_losses)};
}

const LossKernels& find_loss(const Kernels& kernels, std::string_view name) {
  std::vector<const char*> names;
  for (const LossKernels& loss : losses_of(kernels)) {
    if (name == loss.name) {
      return loss;
    }
    names.push_back(loss.name);
  }
  throw std::invalid_argument("there is no fused loss '" + std::string(name) + "'; there are: " + listed(names));
}

using SettingsDict = nb::typed<nb::dict, nb::str, double>;
using ColumnsDict = nb::typed<nb::dict, nb::str, ArrayIn>;

/// A loss's settings in its own order.
class Settings {
 public:
  Settings(const LossKernels& loss, const nb::dict& given) {
    const std::span<const char* const> names{loss.settings, static_cast<Size>(loss.num_settings)};
    for (Size i = 0; i < names.size(); ++i) {
      PyObject* const value = PyDict_GetItemString(given.ptr(), names[i]);
      if (value == nullptr) {
        throw std::invalid_argument(std::string(loss.name) + " needs the setting '" + names[i] +
                                    "'; it takes: " + listed(names));
      }
      const double number = PyFloat_AsDouble(value);
      if ((number == -1.0 && PyErr_Occurred() != nullptr) || std::isnan(number)) {
        PyErr_Clear();
        throw std::invalid_argument("setting '" + std::string(names[i]) + "' of " + loss.name + " must be a number");
      }
      values_[i] = static_cast<float>(number);
    }
    if (given.size() != names.size()) {
      refuse_unknown(loss, names, given);
    }
  }
  [[nodiscard]] const float* values() const noexcept { return values_; }

 private:
  [[noreturn]] static void refuse_unknown(const LossKernels& loss, std::span<const char* const> names,
                                          const nb::dict& given) {
    std::string unknown;
    for (const auto& [key, value] : given) {
      const auto name = nb::cast<std::string>(key);
      if (std::ranges::find(names, name) == names.end()) {
        unknown += (unknown.empty() ? "'" : ", '") + name + "'";
      }
    }
    throw std::invalid_argument(std::string(loss.name) + " has no setting " + unknown + "; it takes: " + listed(names));
  }

  float values_[max_loss_members] = {};
};

/// The indices, each checked against the number of samples.
const std::int32_t* checked_index(const ArrayIn& index, Size samples) {
  const Size count = axis(index, "index", 1, 0);
  const auto* const from = numbers<std::int32_t>(index, "index", {count});
  const auto size = static_cast<std::int32_t>(std::min<Size>(samples, 0x7FFFFFFF));
  int bad = 0;
  for (Size i = 0; i < count; ++i) {
    bad |= static_cast<int>(from[i] < 0) | static_cast<int>(from[i] >= size);
  }
  for (Size i = 0; bad != 0 && i < count; ++i) {
    if (from[i] < 0 || from[i] >= size) {
      throw std::invalid_argument("index[" + std::to_string(i) + "] must lie between 0 and " +
                                  std::to_string(samples - 1) + ", not " + std::to_string(from[i]));
    }
  }
  return from;
}

/// `_native.Samples`: a rollout's arrays, checked once and kept alive.
class NativeSamples {
 public:
  NativeSamples(const ArrayIn& obs, const ArrayIn& action, const ColumnsDict& columns, const OptionalArray& mask)
      : arrays_{obs, action} {
    size_ = axis(obs, "obs", 2, 0);
    obs_size_ = obs.shape(1);
    obs_ = numbers<float>(obs, "obs", {size_, obs_size_});
    num_actions_ = axis(action, "action", 2, 1);
    if (action.dtype() == nb::dtype<float>()) {
      action_ = numbers<float>(action, "action", {size_, num_actions_});
    } else if (action.dtype() == nb::dtype<std::int64_t>()) {
      choice_ = numbers<std::int64_t>(action, "action", {size_, num_actions_});
      find_highest();
    } else {
      throw std::invalid_argument("action must be an array of int64 (choices) or float32 (a Gaussian's)");
    }
    for (const auto& [key, value] : columns) {
      const auto name = nb::cast<std::string>(nb::str(key));
      ArrayIn values;
      if (!nb::try_cast(value, values, false)) {
        throw std::invalid_argument(name + " must be an array of float32");
      }
      add_column(name, values);
    }
    if (mask.has_value()) {
      num_options_ = axis(*mask, "mask", 2, 1);
      mask_ = numbers<std::uint8_t>(*mask, "mask", {size_, num_options_});
      arrays_.push_back(*mask);
    }
  }

  [[nodiscard]] Size size() const noexcept { return size_; }
  [[nodiscard]] Size obs_size() const noexcept { return obs_size_; }
  [[nodiscard]] const float* obs() const noexcept { return obs_; }

  /// ValueError where these are not samples of the plan's policy.
  void check_fit(const NativePlan& plan) const {
    if (obs_size_ != plan.obs_size()) {
      throw std::invalid_argument("samples: obs has " + std::to_string(obs_size_) + " numbers, the plan takes " +
                                  std::to_string(plan.obs_size()));
    }
    if (plan.gaussian() != (action_ != nullptr)) {
      throw std::invalid_argument(std::string("samples: action must be an array of ") +
                                  (plan.gaussian() ? "float32" : "int64") + ", as the plan's head gives it");
    }
    if (num_actions_ != plan.num_actions()) {
      throw std::invalid_argument("samples: action has " + std::to_string(num_actions_) + " parts, the plan gives " +
                                  std::to_string(plan.num_actions()));
    }
    if (mask_ != nullptr && (plan.gaussian() || num_options_ != plan.num_outputs())) {
      throw std::invalid_argument("samples: mask has " + std::to_string(num_options_) + " options, the plan chooses " +
                                  "among " + std::to_string(plan.gaussian() ? 0 : plan.num_outputs()));
    }
    for (Size k = 0; k < highest_.size(); ++k) {
      if (highest_[k] >= static_cast<std::uint64_t>(plan.net().nvec[k])) {
        refuse_choice(plan.net(), k);
      }
    }
  }

  /// The loss's columns, in its order.
  void find_columns(const LossKernels& loss, const float** to) const {
    for (int c = 0; c < loss.num_columns; ++c) {
      to[c] = nullptr;
      for (const auto& [name, values] : columns_) {
        to[c] = name == loss.columns[c] ? values : to[c];
      }
      if (to[c] == nullptr) {
        std::vector<const char*> names;
        for (const auto& column : columns_) {
          names.push_back(column.first.c_str());
        }
        throw std::invalid_argument("samples have no column '" + std::string(loss.columns[c]) + "', which " +
                                    loss.name + " reads; they have: " + listed(names));
      }
    }
  }

  [[nodiscard]] Minibatch pick(const std::int32_t* index, Size count, const float* const* columns) const noexcept {
    return {obs_, choice_, action_, mask_, columns, index, static_cast<std::ptrdiff_t>(count)};
  }

 private:
  /// The highest choice of each part; a negative one counts as higher than any other.
  void find_highest() {
    highest_.assign(num_actions_, 0);
    for (Size i = 0; i < size_; ++i) {
      for (Size k = 0; k < num_actions_; ++k) {
        highest_[k] = std::max(highest_[k], static_cast<std::uint64_t>(choice_[i * num_actions_ + k]));
      }
    }
  }

  void add_column(std::string name, const ArrayIn& values) {
    columns_.emplace_back(name, numbers<float>(values, name.c_str(), {size_}));
    arrays_.push_back(values);
  }

  [[noreturn]] void refuse_choice(const Net& net, Size k) const {
    Size i = 0;
    while (static_cast<std::uint64_t>(choice_[i * num_actions_ + k]) < static_cast<std::uint64_t>(net.nvec[k])) {
      ++i;
    }
    throw std::invalid_argument("action of sample " + std::to_string(i) +
                                " is out of the range that action_nvec gives: " +
                                std::to_string(choice_[i * num_actions_ + k]) + " of " + std::to_string(net.nvec[k]));
  }

  std::vector<ArrayIn> arrays_;
  Size size_ = 0;
  Size obs_size_ = 0;
  Size num_actions_ = 0;
  Size num_options_ = 0;
  const float* obs_ = nullptr;
  const std::int64_t* choice_ = nullptr;
  const float* action_ = nullptr;
  const std::uint8_t* mask_ = nullptr;
  std::vector<std::uint64_t> highest_;
  std::vector<std::pair<std::string, const float*>> columns_;
};

/// A step's arguments, checked.
struct StepArguments {
  StepArguments(const NativePlan& plan, std::string_view name, const NativeSamples& samples, const ArrayIn& index,
                const nb::dict& given, const ArrayOut& stats_out)
      : loss(find_loss(plan.plan().kernels(), name)), settings(loss, given) {
    samples.check_fit(plan);
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
  if (optimizer.size() != plan.num_params()) {
    throw std::invalid_argument("optimizer: its moments hold " + std::to_string(optimizer.size()) +
                                " numbers, the plan has " + std::to_string(plan.num_params()) + " parameters");
  }
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

Size kept_count(const NativeTowers& plan) {
  if (plan.plan().kept_count() == 0) {
    throw std::invalid_argument("backward needs the activations of forward_train: call that first");
  }
  return static_cast<Size>(plan.plan().kept_count());
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
  plan.plan().backward(logits, value, grad, obs);
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

void tower_backward(NativeTower& plan, const ArrayIn& out_grad, const ArrayOut& grad_out,
                    const std::optional<ArrayOut>& obs_grad_out) {
  const Size count = kept_count(plan);
  const auto* const slopes = numbers<float>(out_grad, "out_grad", {count, plan.num_outputs()});
  auto* const grad = numbers<float>(grad_out, "grad_out", {plan.num_params()});
  auto* const obs = optional_rows(obs_grad_out, "obs_grad_out", count, plan.obs_size());
  const nb::gil_scoped_release released;
  plan.plan().backward(slopes, nullptr, grad, obs);
}

using Names = std::vector<std::string>;

std::map<std::string, std::tuple<Names, Names, Names>> fused_losses() {
  std::map<std::string, std::tuple<Names, Names, Names>> all;
  for (const LossKernels& loss : losses_of(find_kernels(""))) {
    all.emplace(loss.name, std::tuple{Names(loss.columns, loss.columns + loss.num_columns),
                                      Names(loss.settings, loss.settings + loss.num_settings),
                                      Names(loss.stats, loss.stats + loss.num_stats)});
  }
  return all;
}

void bind_samples(nb::module_& module) {
  nb::class_<NativeSamples>(module, "Samples",
                            "A rollout's samples, checked once; its arrays are kept alive and not copied.")
      .def(nb::init<const ArrayIn&, const ArrayIn&, const ColumnsDict&, const OptionalArray&>(), "obs"_a.noconvert(),
           "action"_a.noconvert(), "columns"_a, nb::kw_only(), "mask"_a.noconvert() = nb::none(),
           "obs: float32 [N, D]. action: int64 [N, K] choices, or float32 [N, K]. columns: float32 [N] by name, what a "
           "loss reads besides. mask: uint8 or bool [N, options], all choices side by side, 0 where one is forbidden.")
      .def("__len__", &NativeSamples::size);
}

void bind_tower(nb::module_& module) {
  nb::class_<NativeTower> tower(module, "TowerPlan",
                                "One MLP tower in native code that shares its owner's parameters: a Q-network, a "
                                "critic, an encoder.");
  tower.def(
      "__init__",
      [](NativeTower* self, const ArrayOut& params, int obs_size, const std::vector<int>& hidden, int outputs,
         const std::string& activation, int num_threads, int grad_shards, int act_block, const std::string& kernels) {
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
  tower.def("backward", &tower_backward, "out_grad"_a.noconvert(), "grad_out"_a.noconvert(),
            "obs_grad_out"_a.noconvert() = nb::none(),
            "The parameters' gradient [P], from that of forward_train's outputs [M, O]; also the observations' [M, D] "
            "if obs_grad_out is given.");
}

}  // namespace

void bind_training(nb::module_& module, nb::class_<NativePlan>& plan) {
  module.def("fused_losses", &fused_losses,
             "The fused losses: name -> the columns that it reads, the settings that it takes, the statistics that it "
             "gives.");
  bind_samples(module);
  bind_optimizers(module);
  bind_tower(module);
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
        samples.check_fit(self);
        policy_forward_train(self, {samples.obs(), samples.size(), index}, logits, value);
      },
      "samples"_a, "index"_a.noconvert().none(), "logits_out"_a.noconvert(), "value_out"_a.noconvert());
  plan.def("backward", &policy_backward, "logits_grad"_a.noconvert(), "value_grad"_a.noconvert(),
           "grad_out"_a.noconvert(), "obs_grad_out"_a.noconvert() = nb::none(),
           "The parameters' gradient [P], from those of forward_train's logits [M, A] and values [M]. log_std is no "
           "output of the towers: its part is 0.");
}

}  // namespace shoal
