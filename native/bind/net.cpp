// shoal._native's lowered policies: MlpPlan.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "bind/arrays.hpp"
#include "bind/native.hpp"
#include "bind/plan.hpp"
#include "bind/slab.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

void set_normalizer(NativePlan& plan, const ArrayIn& mean, const ArrayIn& inv_std, float clip) {
  plan.plan().set_normalizer(numbers<float>(mean, "mean", {plan.obs_size()}),
                             numbers<float>(inv_std, "inv_std", {plan.obs_size()}), clip);
}

void set_action_bounds(NativePlan& plan, const ArrayIn& low, const ArrayIn& high) {
  plan.plan().set_action_bounds(numbers<float>(low, "low", {plan.num_actions()}),
                                numbers<float>(high, "high", {plan.num_actions()}));
}

void forward(NativePlan& plan, const ArrayIn& obs, const ArrayOut& logits_out, const ArrayOut& value_out) {
  const Size count = axis(obs, "obs", 2, 0);
  const float* from = numbers<float>(obs, "obs", {count, plan.obs_size()});
  float* logits = numbers<float>(logits_out, "logits_out", {count, plan.num_outputs()});
  float* value = numbers<float>(value_out, "value_out", {count});
  const nb::gil_scoped_release released;
  plan.plan().forward(from, static_cast<std::ptrdiff_t>(count), logits, value);
}

void act(NativePlan& plan, const ArrayIn& obs, std::uint64_t seed, std::uint32_t stream, const ArrayIn& rows,
         const ArrayIn& steps, bool greedy, const ArrayOut& action_out, const ArrayOut& log_prob_out,
         const ArrayOut& value_out, const OptionalArray& mask, const OptionalArray& epsilon) {
  const Size count = axis(obs, "obs", 2, 0);
  const float* from = numbers<float>(obs, "obs", {count, plan.obs_size()});
  const Noise noise{seed,
                    checked_stream(stream),
                    numbers<std::int64_t>(rows, "rows", {count}),
                    numbers<std::int64_t>(steps, "steps", {count}),
                    greedy,
                    epsilon_of(plan.net(), epsilon, count)};
  const ActOut out = action_arrays(plan.net(), action_out, log_prob_out, value_out, count);
  const std::uint8_t* const options = mask_of(plan.net(), mask, count);
  const nb::gil_scoped_release released;
  plan.plan().act(from, static_cast<std::ptrdiff_t>(count), noise, options, out);
}

double rollout(NativePlan& plan, NativePool& pool, const ArrayOut& current_obs, const ArrayOut& current_start,
               const ArrayOut& row_step, const ArrayOut& obs, const ArrayOut& start, const ArrayOut& action,
               const ArrayOut& log_prob, const ArrayOut& value, const ArrayOut& next_value, const ArrayOut& reward,
               const ArrayOut& terminated, const ArrayOut& truncated, const ArrayOut& final_index,
               const ArrayOut& final_obs, const ArrayOut& episode_return, const ArrayOut& episode_length,
               const ArrayOut& drawn, std::uint64_t seed, std::uint32_t stream, const ArrayIn& rows,
               const OptionalArray& epsilon) {
  const SlabArrays arrays{current_obs,    current_start,  row_step, obs,        start,     action,      log_prob,
                          value,          next_value,     reward,   terminated, truncated, final_index, final_obs,
                          episode_return, episode_length, drawn,    rows};
  const InUse in_use = pool.use("rollout");
  Slab slab = arrays.checked(pool, plan.net(), plan.obs_size(), {nullptr, nullptr});
  slab.epsilon = epsilon_of(plan.net(), epsilon, static_cast<Size>(pool.rows().num_rows()));
  Rollout run(plan.plan(), pool.rows(), slab, seed, checked_stream(stream));
  const nb::gil_scoped_release released;
  return run.run();
}

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const Kernels* kernels : usable_kernels()) {
    names.emplace_back(kernels->name);
  }
  return names;
}

/// Single-precision operations per second of one core: the median of `repeats` timings of pure multiply-adds.
double fma_peak(int repeats) {
  const Kernels& kernels = find_kernels("");
  constexpr std::ptrdiff_t rounds = 4'000'000;
  std::vector<double> rates;
  float kept = 0.0F;
  const nb::gil_scoped_release released;
  for (int i = 0; i < std::max(1, repeats); ++i) {
    const auto begun = std::chrono::steady_clock::now();
    kept += kernels.multiply_adds(rounds);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begun;
    rates.push_back(kernels.multiply_add_flops(rounds) / seconds.count());
  }
  std::ranges::sort(rates);
  return kept > 0.0F ? rates[rates.size() / 2] : 0.0;
}

void convert_pixels(const ArrayIn& pixels, const OptionalArray& mean, const OptionalArray& inv_std, float clip,
                    bool channels_last, const ArrayOut& out, const std::string& kernels) {
  const Size images = axis(out, "out", 4, 0);
  const Size height = axis(out, "out", 4, 1);
  const Size width = axis(out, "out", 4, 2);
  const Size channels = axis(out, "out", 4, 3);
  if (channels < 1) {
    throw std::invalid_argument("an image must have at least 1 channel");
  }
  const auto* from = channels_last ? numbers<std::uint8_t>(pixels, "pixels", {images, height, width, channels})
                                   : numbers<std::uint8_t>(pixels, "pixels", {images, channels, height, width});
  if (mean.has_value() != inv_std.has_value()) {
    throw std::invalid_argument("mean and inv_std must be given both, or neither of them");
  }
  PixelMoments moments{nullptr, nullptr, clip};
  if (mean.has_value()) {
    moments.mean = numbers<float>(*mean, "mean", {height, width, channels});
    moments.inv_std = numbers<float>(*inv_std, "inv_std", {height, width, channels});
  }
  PixelsOut to{nullptr, nullptr};
  if (out.dtype() == nb::dtype<float>()) {
    to.single = numbers<float>(out, "out", {images, height, width, channels});
  } else {
    to.half = numbers<std::uint16_t>(out, "out", {images, height, width, channels});
  }
  const Kernels& chosen = find_kernels(kernels);
  const ImageShape shape{static_cast<std::ptrdiff_t>(height * width), static_cast<std::ptrdiff_t>(channels),
                         channels_last};
  const nb::gil_scoped_release released;
  chosen.pixels_last(from, static_cast<std::ptrdiff_t>(images), shape, mean.has_value() ? &moments : nullptr, to);
}

void bind_pixels(nb::module_& module) {
  module.def(
      "convert_pixels", &convert_pixels, "pixels"_a.noconvert(), "mean"_a.noconvert().none(),
      "inv_std"_a.noconvert().none(), "clip"_a, "channels_last"_a, "out"_a.noconvert(), "kernels"_a = "",
      "Writes uint8 images to `out`, float32 or uint16 (bfloat16's bits) [N, H, W, C]: clip((x - mean) * inv_std, "
      "-clip, clip), or x where mean and inv_std are None.\n\n`pixels`: [N, H, W, C] with `channels_last`, else "
      "[N, C, H, W]; `mean` and `inv_std`: float32 [H, W, C].");
}

}  // namespace
}  // namespace shoal

void bind_net(nb::module_& module) {
  using namespace shoal;
  module.def("kernel_names", &kernel_names, "Names of the kernels that this machine can run, the fastest first.");
  module.def("fma_peak", &fma_peak, "repeats"_a = 5,
             "Single-precision operations per second of one core: the median of `repeats` timings.");
  bind_pixels(module);
  nb::class_<NativePlan> plan(
      module, "MlpPlan",
      "A policy of two MLP towers, or a Q-network of one, in native code that shares its owner's parameters.");
  plan.def(
      "__init__",
      [](NativePlan* self, const ArrayOut& params, int obs_size, const std::vector<int>& hidden,
         const std::string& head, const std::vector<int>& action_nvec, const std::string& activation, int num_threads,
         int act_block, int grad_shards, const std::string& kernels, bool shared) {
        check_sizes({obs_size, largest(action_nvec)}, hidden, act_block, grad_shards);
        new (self) NativePlan(make_net({obs_size, hidden, head, action_nvec, activation}), params, num_threads,
                              act_block, grad_shards, kernels, shared);
      },
      "params"_a.noconvert(), "obs_size"_a, "hidden"_a, "head"_a, "action_nvec"_a, "activation"_a, "num_threads"_a,
      "act_block"_a, "grad_shards"_a, "kernels"_a = "", nb::kw_only(), "shared"_a = false,
      "shared: it waits for the calls of others that share, and uses their threads and their memory for gradients.");
  plan.def_prop_ro("num_params", &NativePlan::num_params);
  plan.def_prop_ro("num_threads", [](const NativePlan& self) { return self.plan().num_threads(); });
  plan.def_prop_ro("act_block", [](const NativePlan& self) { return self.plan().act_block(); });
  plan.def(
      "rows_per_block",
      [](const NativePlan& self, int num_agents, int count) {
        return checked_rows_per_block(self.plan(), num_agents, count);
      },
      "num_agents"_a, "count"_a, "Rows of a rollout of `count` rows that act together on one thread.");
  plan.def_prop_ro("grad_shards", [](const NativePlan& self) { return self.plan().grad_shards(); });
  plan.def_prop_ro("kernels", [](const NativePlan& self) { return self.plan().kernels().name; });
  plan.def("set_normalizer", &set_normalizer, "mean"_a.noconvert(), "inv_std"_a.noconvert(), "clip"_a,
           "Observations become clip((x - mean) * inv_std, -clip, clip); the numbers are copied.");
  plan.def("set_action_bounds", &set_action_bounds, "low"_a.noconvert(), "high"_a.noconvert(),
           "What rollout clips a Gaussian's actions to before the environment sees them.");
  plan.def("forward", &forward, "obs"_a.noconvert(), "logits_out"_a.noconvert(), "value_out"_a.noconvert(),
           "Logits (or means) [N, A] and values [N] of observations [N, D].");
  plan.def(
      "act", &act, "obs"_a.noconvert(), "seed"_a, "stream"_a, "rows"_a.noconvert(), "steps"_a.noconvert(), "greedy"_a,
      "action_out"_a.noconvert(), "log_prob_out"_a.noconvert(), "value_out"_a.noconvert(), nb::kw_only(),
      "mask"_a.noconvert() = nb::none(), "epsilon"_a.noconvert() = nb::none(),
      "Actions drawn with the Philox noise of (seed, stream, row, step), or greedy. mask: uint8 or bool [N, A], all "
      "choices side by side, 0 where an option is not to be chosen. epsilon: float32 [N], how often a Q-network's rows "
      "explore.");
  plan.def("rollout", &rollout, "pool"_a, "current_obs"_a.noconvert(), "current_start"_a.noconvert(),
           "row_step"_a.noconvert(), "obs"_a.noconvert(), "start"_a.noconvert(), "action"_a.noconvert(),
           "log_prob"_a.noconvert(), "value"_a.noconvert(), "next_value"_a.noconvert(), "reward"_a.noconvert(),
           "terminated"_a.noconvert(), "truncated"_a.noconvert(), "final_index"_a.noconvert(),
           "final_obs"_a.noconvert(), "episode_return"_a.noconvert(), "episode_length"_a.noconvert(),
           "drawn"_a.noconvert(), "seed"_a, "stream"_a, "rows"_a.noconvert(), nb::kw_only(),
           "epsilon"_a.noconvert() = nb::none(),
           "Acts in and steps all of the pool's rows for T steps and fills the slab. rows [B]: their numbers in the "
           "noise; epsilon [B] as in act. Returns the share of the time in which the rows stepped.");
  bind_training(module, plan);
}
