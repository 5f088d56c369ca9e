// shoal._native's lowered policies: MlpPlan.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "bind/arrays.hpp"
#include "bind/native.hpp"
#include "net/rollout.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

using Size = std::size_t;

/// `_native.MlpPlan`: the plan and the reference that keeps its parameters alive.
class NativePlan {
 public:
  NativePlan(const ArrayOut& params, int obs_size, const std::vector<int>& hidden, const std::string& head,
             const std::vector<int>& action_nvec, const std::string& activation, int num_threads, int act_block,
             int grad_shards, const std::string& kernels)
      : array_(params),
        plan_({obs_size, hidden, head, action_nvec, activation}, static_cast<float*>(params.data()), num_threads,
              act_block, grad_shards, kernels) {
    numbers<float>(params, "params", {num_params()});
  }

  [[nodiscard]] MlpPlan& plan() noexcept { return plan_; }
  [[nodiscard]] const MlpPlan& plan() const noexcept { return plan_; }
  [[nodiscard]] Size num_params() const noexcept { return static_cast<Size>(plan_.net().num_params); }
  [[nodiscard]] Size obs_size() const noexcept { return static_cast<Size>(plan_.net().obs_size); }
  [[nodiscard]] Size num_outputs() const noexcept { return static_cast<Size>(plan_.net().num_outputs); }
  [[nodiscard]] Size num_actions() const noexcept { return static_cast<Size>(plan_.net().num_actions); }
  [[nodiscard]] bool gaussian() const noexcept { return plan_.net().head == Head::gaussian; }

  void set_normaliser(const ArrayIn& mean, const ArrayIn& inv_std, float clip) {
    plan_.set_normaliser(numbers<float>(mean, "mean", {obs_size()}), numbers<float>(inv_std, "inv_std", {obs_size()}),
                         clip);
  }

  void set_action_bounds(const ArrayIn& low, const ArrayIn& high) {
    plan_.set_action_bounds(numbers<float>(low, "low", {num_actions()}), numbers<float>(high, "high", {num_actions()}));
  }

  void forward(const ArrayIn& obs, const ArrayOut& logits_out, const ArrayOut& value_out) {
    const Size count = axis(obs, "obs", 2, 0);
    const float* from = numbers<float>(obs, "obs", {count, obs_size()});
    float* logits = numbers<float>(logits_out, "logits_out", {count, num_outputs()});
    float* value = numbers<float>(value_out, "value_out", {count});
    const nb::gil_scoped_release released;
    plan_.forward(from, static_cast<std::ptrdiff_t>(count), logits, value);
  }

  void act(const ArrayIn& obs, std::uint64_t seed, std::uint32_t stream, const ArrayIn& rows, const ArrayIn& steps,
           bool greedy, const ArrayOut& action_out, const ArrayOut& log_prob_out, const ArrayOut& value_out) {
    const Size count = axis(obs, "obs", 2, 0);
    const float* from = numbers<float>(obs, "obs", {count, obs_size()});
    const Noise noise{seed, checked_stream(stream), numbers<std::int64_t>(rows, "rows", {count}),
                      numbers<std::int64_t>(steps, "steps", {count}), greedy};
    const ActOut out{gaussian() ? nullptr : numbers<std::int64_t>(action_out, "action_out", {count, num_actions()}),
                     gaussian() ? numbers<float>(action_out, "action_out", {count, num_actions()}) : nullptr,
                     numbers<float>(log_prob_out, "log_prob_out", {count}),
                     numbers<float>(value_out, "value_out", {count})};
    const nb::gil_scoped_release released;
    plan_.act(from, static_cast<std::ptrdiff_t>(count), noise, out);
  }

  static std::uint32_t checked_stream(std::uint32_t stream) {
    if (stream >> 16 != 0) {
      throw std::invalid_argument("stream must be below 65536, not " + std::to_string(stream));
    }
    return stream;
  }

 private:
  ArrayOut array_;
  MlpPlan plan_;
};

/// The arrays that PPO and A2C share, checked; log_prob and value are PPO's own.
Samples check_samples(const NativePlan& plan, const ArrayIn& obs, const ArrayIn& action, const ArrayIn* log_prob,
                      const ArrayIn* value, const ArrayIn& advantage, const ArrayIn& target, const ArrayIn& index,
                      bool norm_adv) {
  const Size count = axis(obs, "obs", 2, 0);
  const Size chosen = axis(index, "index", 1, 0);
  const Samples samples{
      numbers<float>(obs, "obs", {count, plan.obs_size()}),
      plan.gaussian() ? nullptr : numbers<std::int64_t>(action, "action", {count, plan.num_actions()}),
      plan.gaussian() ? numbers<float>(action, "action", {count, plan.num_actions()}) : nullptr,
      log_prob == nullptr ? nullptr : numbers<float>(*log_prob, "log_prob", {count}),
      value == nullptr ? nullptr : numbers<float>(*value, "value", {count}),
      numbers<float>(advantage, "advantage", {count}),
      numbers<float>(target, "target", {count}),
      numbers<std::int32_t>(index, "index", {chosen}),
      static_cast<std::ptrdiff_t>(chosen)};
  if (chosen < (norm_adv ? 2U : 1U)) {
    throw std::invalid_argument("index must name at least " + std::string(norm_adv ? "2" : "1") + " samples, not " +
                                std::to_string(chosen));
  }
  for (Size i = 0; i < chosen; ++i) {
    if (samples.index[i] < 0 || std::cmp_greater_equal(samples.index[i], count)) {
      throw std::invalid_argument("index[" + std::to_string(i) + "] must lie between 0 and " +
                                  std::to_string(count - 1) + ", not " + std::to_string(samples.index[i]));
    }
  }
  return samples;
}

double* stats_of(const ArrayOut& stats) { return numbers<double>(stats, "stats", {num_stats}); }

void check_sums(const LossSums& sums, const Samples& samples) {
  if (sums.bad >= 0) {
    throw std::invalid_argument("action of sample " + std::to_string(samples.index[sums.bad]) +
                                " is out of the range that action_nvec gives");
  }
}

void check_step(std::int64_t step) {
  if (step < 1) {
    throw std::invalid_argument("step must be at least 1, not " + std::to_string(step));
  }
}

void ppo_gradient(NativePlan& plan, const ArrayIn& obs, const ArrayIn& action, const ArrayIn& log_prob,
                  const ArrayIn& value, const ArrayIn& advantage, const ArrayIn& target, const ArrayIn& index,
                  double clip_coef, bool clip_vloss, double ent_coef, double vf_coef, bool norm_adv,
                  const ArrayOut& grad_out, const ArrayOut& stats) {
  const Samples samples = check_samples(plan, obs, action, &log_prob, &value, advantage, target, index, norm_adv);
  float* grad = numbers<float>(grad_out, "grad_out", {plan.num_params()});
  double* totals = stats_of(stats);
  const nb::gil_scoped_release released;
  check_sums(plan.plan().gradient(samples, {true, clip_coef, clip_vloss, ent_coef, vf_coef, norm_adv}, grad, totals),
             samples);
}

void ppo_step(NativePlan& plan, const ArrayIn& obs, const ArrayIn& action, const ArrayIn& log_prob,
              const ArrayIn& value, const ArrayIn& advantage, const ArrayIn& target, const ArrayIn& index,
              double clip_coef, bool clip_vloss, double ent_coef, double vf_coef, bool norm_adv, double max_grad_norm,
              double learning_rate, double adam_eps, const ArrayOut& exp_avg, const ArrayOut& exp_avg_sq,
              std::int64_t step, const ArrayOut& stats) {
  check_step(step);
  const Samples samples = check_samples(plan, obs, action, &log_prob, &value, advantage, target, index, norm_adv);
  const AdamConfig adam{learning_rate, adam_eps, numbers<float>(exp_avg, "exp_avg", {plan.num_params()}),
                        numbers<float>(exp_avg_sq, "exp_avg_sq", {plan.num_params()}), step};
  double* totals = stats_of(stats);
  const nb::gil_scoped_release released;
  check_sums(plan.plan().adam_step(samples, {true, clip_coef, clip_vloss, ent_coef, vf_coef, norm_adv}, max_grad_norm,
                                   adam, totals),
             samples);
}

void a2c_gradient(NativePlan& plan, const ArrayIn& obs, const ArrayIn& action, const ArrayIn& advantage,
                  const ArrayIn& target, const ArrayIn& index, double ent_coef, double vf_coef, bool norm_adv,
                  const ArrayOut& grad_out, const ArrayOut& stats) {
  const Samples samples = check_samples(plan, obs, action, nullptr, nullptr, advantage, target, index, norm_adv);
  float* grad = numbers<float>(grad_out, "grad_out", {plan.num_params()});
  double* totals = stats_of(stats);
  const nb::gil_scoped_release released;
  check_sums(plan.plan().gradient(samples, {false, 0.0, false, ent_coef, vf_coef, norm_adv}, grad, totals), samples);
}

void a2c_step(NativePlan& plan, const ArrayIn& obs, const ArrayIn& action, const ArrayIn& advantage,
              const ArrayIn& target, const ArrayIn& index, double ent_coef, double vf_coef, bool norm_adv,
              double max_grad_norm, double learning_rate, double alpha, double eps, const ArrayOut& square_avg,
              const ArrayOut& stats) {
  const Samples samples = check_samples(plan, obs, action, nullptr, nullptr, advantage, target, index, norm_adv);
  const RmsPropConfig rmsprop{learning_rate, alpha, eps, numbers<float>(square_avg, "square_avg", {plan.num_params()})};
  double* totals = stats_of(stats);
  const nb::gil_scoped_release released;
  check_sums(plan.plan().rmsprop_step(samples, {false, 0.0, false, ent_coef, vf_coef, norm_adv}, max_grad_norm, rmsprop,
                                      totals),
             samples);
}

void rollout(NativePlan& plan, NativePool& pool, const ArrayOut& current_obs, const ArrayOut& current_start,
             const ArrayOut& row_step, const ArrayOut& obs, const ArrayOut& start, const ArrayOut& action,
             const ArrayOut& log_prob, const ArrayOut& value, const ArrayOut& next_value, const ArrayOut& reward,
             const ArrayOut& terminated, const ArrayOut& truncated, const ArrayOut& final_index,
             const ArrayOut& final_obs, const ArrayOut& episode_return, const ArrayOut& episode_length,
             const ArrayOut& drawn, std::uint64_t seed, std::uint32_t stream) {
  pool.require_idle("rollout");
  const Size T = axis(reward, "reward", 2, 0);
  const auto B = static_cast<Size>(pool.rows().num_rows());
  const Size D = plan.obs_size();
  const Size K = plan.num_actions();
  if (T < 1 || T * B > 0x7FFFFFFF) {
    throw std::invalid_argument("reward must hold between 1 and 2147483647 steps, not " + std::to_string(T * B));
  }
  const Slab slab{static_cast<std::ptrdiff_t>(T),
                  numbers<float>(current_obs, "current_obs", {B, D}),
                  numbers<std::uint8_t>(current_start, "current_start", {B}),
                  numbers<std::int64_t>(row_step, "row_step", {B}),
                  numbers<float>(obs, "obs", {T, B, D}),
                  numbers<std::uint8_t>(start, "start", {T, B}),
                  plan.gaussian() ? nullptr : numbers<std::int64_t>(action, "action", {T, B, K}),
                  plan.gaussian() ? numbers<float>(action, "action", {T, B, K}) : nullptr,
                  numbers<float>(log_prob, "log_prob", {T, B}),
                  numbers<float>(value, "value", {T, B}),
                  numbers<float>(next_value, "next_value", {T, B}),
                  numbers<float>(reward, "reward", {T, B}),
                  numbers<std::uint8_t>(terminated, "terminated", {T, B}),
                  numbers<std::uint8_t>(truncated, "truncated", {T, B}),
                  numbers<std::int32_t>(final_index, "final_index", {T, B}),
                  numbers<float>(final_obs, "final_obs", {T * B, D}),
                  numbers<double>(episode_return, "episode_return", {T, B}),
                  numbers<std::int64_t>(episode_length, "episode_length", {T, B}),
                  numbers<double>(drawn, "drawn", {T, B, static_cast<Size>(pool.rows().num_drawn())})};
  Rollout run(plan.plan(), pool.rows(), slab, seed, NativePlan::checked_stream(stream));
  const nb::gil_scoped_release released;
  run.run();
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
  std::sort(rates.begin(), rates.end());
  return kept > 0.0F ? rates[rates.size() / 2] : 0.0;
}

void normalise_pixels(const ArrayIn& pixels, const ArrayIn& mean, const ArrayIn& inv_std, float clip, bool colours_last,
                      const ArrayOut& out, const std::string& kernels) {
  const Size height = axis(mean, "mean", 3, 0);
  const Size width = axis(mean, "mean", 3, 1);
  const Size colours = axis(mean, "mean", 3, 2);
  const Size images = axis(pixels, "pixels", 4, 0);
  if (colours < 1) {
    throw std::invalid_argument("an image must have at least 1 colour");
  }
  const auto* from = colours_last ? numbers<std::uint8_t>(pixels, "pixels", {images, height, width, colours})
                                  : numbers<std::uint8_t>(pixels, "pixels", {images, colours, height, width});
  const PixelMoments moments{numbers<float>(mean, "mean", {height, width, colours}),
                             numbers<float>(inv_std, "inv_std", {height, width, colours}), clip};
  auto* to = numbers<std::uint16_t>(out, "out", {images, height, width, colours});
  const Kernels& chosen = find_kernels(kernels);
  const ImageShape shape{static_cast<std::ptrdiff_t>(height * width), static_cast<std::ptrdiff_t>(colours),
                         colours_last};
  const nb::gil_scoped_release released;
  chosen.normalise_pixels(from, static_cast<std::ptrdiff_t>(images), shape, moments, to);
}

}  // namespace
}  // namespace shoal

void bind_net(nb::module_& module) {
  using namespace shoal;
  module.def("kernel_names", &kernel_names, "Names of the kernels that this machine can run, the fastest first.");
  module.def("fma_peak", &fma_peak, "repeats"_a = 5,
             "Single-precision operations per second of one core: the median of `repeats` timings.");
  module.def("normalise_pixels", &normalise_pixels, "pixels"_a.noconvert(), "mean"_a.noconvert(),
             "inv_std"_a.noconvert(), "clip"_a, "colours_last"_a, "out"_a.noconvert(), "kernels"_a = "",
             "Writes clip((x - mean) * inv_std, -clip, clip) of uint8 images to `out`, uint16 [N, H, W, C]: bfloat16's "
             "bits.\n\n`pixels`: [N, H, W, C] with `colours_last`, else [N, C, H, W]; `mean` and `inv_std`: float32 "
             "[H, W, C].");
  nb::class_<NativePlan> plan(module, "MlpPlan",
                              "A policy of two MLP towers in native code that shares its owner's parameters.");
  plan.def(nb::init<const ArrayOut&, int, const std::vector<int>&, const std::string&, const std::vector<int>&,
                    const std::string&, int, int, int, const std::string&>(),
           "params"_a.noconvert(), "obs_size"_a, "hidden"_a, "head"_a, "action_nvec"_a, "activation"_a, "num_threads"_a,
           "act_block"_a, "grad_shards"_a, "kernels"_a = "");
  plan.def_prop_ro("num_params", &NativePlan::num_params);
  plan.def_prop_ro("num_threads", [](const NativePlan& self) { return self.plan().num_threads(); });
  plan.def_prop_ro("act_block", [](const NativePlan& self) { return self.plan().act_block(); });
  plan.def_prop_ro("grad_shards", [](const NativePlan& self) { return self.plan().grad_shards(); });
  plan.def_prop_ro("kernels", [](const NativePlan& self) { return self.plan().kernels().name; });
  plan.def("set_normaliser", &NativePlan::set_normaliser, "mean"_a.noconvert(), "inv_std"_a.noconvert(), "clip"_a,
           "Observations become clip((x - mean) * inv_std, -clip, clip); the numbers are copied.");
  plan.def("set_action_bounds", &NativePlan::set_action_bounds, "low"_a.noconvert(), "high"_a.noconvert(),
           "What rollout clips a Gaussian's actions to before the environment sees them.");
  plan.def("forward", &NativePlan::forward, "obs"_a.noconvert(), "logits_out"_a.noconvert(), "value_out"_a.noconvert(),
           "Logits (or means) [N, A] and values [N] of observations [N, D].");
  plan.def("act", &NativePlan::act, "obs"_a.noconvert(), "seed"_a, "stream"_a, "rows"_a.noconvert(),
           "steps"_a.noconvert(), "greedy"_a, "action_out"_a.noconvert(), "log_prob_out"_a.noconvert(),
           "value_out"_a.noconvert(), "Actions drawn with the Philox noise of (seed, stream, row, step), or greedy.");
  plan.def("rollout", &rollout, "pool"_a, "current_obs"_a.noconvert(), "current_start"_a.noconvert(),
           "row_step"_a.noconvert(), "obs"_a.noconvert(), "start"_a.noconvert(), "action"_a.noconvert(),
           "log_prob"_a.noconvert(), "value"_a.noconvert(), "next_value"_a.noconvert(), "reward"_a.noconvert(),
           "terminated"_a.noconvert(), "truncated"_a.noconvert(), "final_index"_a.noconvert(),
           "final_obs"_a.noconvert(), "episode_return"_a.noconvert(), "episode_length"_a.noconvert(),
           "drawn"_a.noconvert(), "seed"_a, "stream"_a,
           "Acts in and steps all of the pool's rows for T steps and fills the slab.");
  plan.def("ppo_gradient", &ppo_gradient, "obs"_a.noconvert(), "action"_a.noconvert(), "log_prob"_a.noconvert(),
           "value"_a.noconvert(), "advantage"_a.noconvert(), "target"_a.noconvert(), "index"_a.noconvert(),
           nb::kw_only(), "clip_coef"_a, "clip_vloss"_a, "ent_coef"_a, "vf_coef"_a, "norm_adv"_a,
           "grad_out"_a.noconvert(), "stats"_a.noconvert(), "The gradient of ppo_step's loss, unclipped.");
  plan.def("ppo_step", &ppo_step, "obs"_a.noconvert(), "action"_a.noconvert(), "log_prob"_a.noconvert(),
           "value"_a.noconvert(), "advantage"_a.noconvert(), "target"_a.noconvert(), "index"_a.noconvert(),
           nb::kw_only(), "clip_coef"_a, "clip_vloss"_a, "ent_coef"_a, "vf_coef"_a, "norm_adv"_a, "max_grad_norm"_a,
           "learning_rate"_a, "adam_eps"_a, "exp_avg"_a.noconvert(), "exp_avg_sq"_a.noconvert(), "step"_a,
           "stats"_a.noconvert(),
           "One Adam step on PPO's loss over samples[index]. stats float64 [8] gains policy_loss, value_loss, entropy, "
           "approx_kl, clip_fraction, grad_norm, 1, and 1 if the gradient was not finite and nothing was changed.");
  plan.def("a2c_gradient", &a2c_gradient, "obs"_a.noconvert(), "action"_a.noconvert(), "advantage"_a.noconvert(),
           "target"_a.noconvert(), "index"_a.noconvert(), nb::kw_only(), "ent_coef"_a, "vf_coef"_a, "norm_adv"_a,
           "grad_out"_a.noconvert(), "stats"_a.noconvert(), "The gradient of a2c_step's loss, unclipped.");
  plan.def("a2c_step", &a2c_step, "obs"_a.noconvert(), "action"_a.noconvert(), "advantage"_a.noconvert(),
           "target"_a.noconvert(), "index"_a.noconvert(), nb::kw_only(), "ent_coef"_a, "vf_coef"_a, "norm_adv"_a,
           "max_grad_norm"_a, "learning_rate"_a, "alpha"_a, "eps"_a, "square_avg"_a.noconvert(), "stats"_a.noconvert(),
           "One RMSProp step on A2C's loss over samples[index]; stats as in ppo_step.");
}
