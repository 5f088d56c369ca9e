// shoal._native's recurrent policies: Sequences and RecurrentPlan.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <string>

#include "bind/optimizers.hpp"
#include "bind/samples.hpp"
#include "bind/slab.hpp"
#include "net/recurrent_plan.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

/// `_native.RecurrentPlan`: the plan and the reference that keeps its parameters alive.
class NativeRecurrent {
 public:
  NativeRecurrent(const RecurrentNet& net, const ArrayOut& params, int num_threads, int act_block, int grad_shards,
                  const std::string& kernels)
      : array_(params),
        plan_(net, checked_params(params, net.num_params), num_threads, act_block, grad_shards, kernels) {}

  [[nodiscard]] RecurrentPlan& plan() noexcept { return plan_; }
  [[nodiscard]] const RecurrentPlan& plan() const noexcept { return plan_; }
  [[nodiscard]] const Net& heads() const noexcept { return plan_.net().heads; }
  [[nodiscard]] Size num_params() const noexcept { return static_cast<Size>(plan_.net().num_params); }
  [[nodiscard]] Size obs_size() const noexcept { return static_cast<Size>(plan_.net().obs_size); }
  [[nodiscard]] Size size() const noexcept { return static_cast<Size>(plan_.net().size); }
  [[nodiscard]] Size num_outputs() const noexcept { return static_cast<Size>(heads().num_outputs); }
  [[nodiscard]] Size num_actions() const noexcept { return static_cast<Size>(heads().num_actions); }
  [[nodiscard]] bool gaussian() const noexcept { return heads().head == Head::gaussian; }
  [[nodiscard]] bool lstm() const noexcept { return plan_.net().cell == Cell::lstm; }

 private:
  ArrayOut array_;
  RecurrentPlan plan_;
};

/// ValueError unless a memory c is given to an LSTM, and to nothing else.
void check_cell(const NativeRecurrent& plan, bool has_c) {
  if (plan.lstm() != has_c) {
    throw std::invalid_argument(plan.lstm() ? "c is missing: an LSTM's memory is h and c"
                                            : "c must be None: a GRU's memory is h alone");
  }
}

Memory memory_of(const NativeRecurrent& plan, const ArrayOut& h, const std::optional<ArrayOut>& c, Size rows) {
  check_cell(plan, c.has_value());
  return {numbers<float>(h, "h", {rows, plan.size()}),
          c.has_value() ? numbers<float>(*c, "c", {rows, plan.size()}) : nullptr};
}

/// `_native.Sequences`: samples [T * B] as the sequences of B rows.
class NativeSequences {
 public:
  /// `samples` must live as long as this.
  NativeSequences(const NativeSamples& samples, const ArrayIn& start, const ArrayIn& h, const OptionalArray& c,
                  const OptionalArray& valid)
      : samples_(&samples), arrays_{start, h} {
    num_steps_ = axis(start, "start", 2, 0);
    num_rows_ = start.shape(1);
    if (num_steps_ * num_rows_ != samples_->size() || num_steps_ < 1 || num_steps_ * num_rows_ > 0x7FFFFFFF) {
      throw std::invalid_argument("start has " + std::to_string(num_steps_) + " steps of " + std::to_string(num_rows_) +
                                  " rows, samples hold " + std::to_string(samples_->size()));
    }
    start_ = numbers<std::uint8_t>(start, "start", {num_steps_, num_rows_});
    size_ = axis(h, "h", 2, 1);
    h_ = numbers<float>(h, "h", {num_rows_, size_});
    if (c.has_value()) {
      c_ = numbers<float>(*c, "c", {num_rows_, size_});
      arrays_.push_back(*c);
    }
    if (valid.has_value()) {
      valid_ = numbers<std::uint8_t>(*valid, "valid", {num_steps_, num_rows_});
      arrays_.push_back(*valid);
    }
  }

  [[nodiscard]] const NativeSamples& samples() const noexcept { return *samples_; }
  [[nodiscard]] Size num_steps() const noexcept { return num_steps_; }
  [[nodiscard]] Size num_rows() const noexcept { return num_rows_; }

  /// ValueError where these are not sequences of the plan's policy.
  void check_fit(const NativeRecurrent& plan) const {
    samples_->check_fit(plan.heads(), plan.obs_size());
    check_cell(plan, c_ != nullptr);
    if (size_ != plan.size()) {
      throw std::invalid_argument("sequences: the memory has " + std::to_string(size_) + " numbers, the plan's has " +
                                  std::to_string(plan.size()));
    }
  }

  [[nodiscard]] SequenceBatch pick(const std::int32_t* rows, Size count, const float* const* columns) const noexcept {
    return {samples_->pick(nullptr, 0, columns),
            start_,
            valid_,
            h_,
            c_,
            static_cast<std::ptrdiff_t>(num_steps_),
            static_cast<std::ptrdiff_t>(num_rows_),
            rows,
            static_cast<std::ptrdiff_t>(count)};
  }

 private:
  const NativeSamples* samples_;
  std::vector<ArrayIn> arrays_;
  Size num_steps_ = 0;
  Size num_rows_ = 0;
  Size size_ = 0;
  const std::uint8_t* start_ = nullptr;
  const std::uint8_t* valid_ = nullptr;
  const float* h_ = nullptr;
  const float* c_ = nullptr;
};

void set_normalizer(NativeRecurrent& plan, const ArrayIn& mean, const ArrayIn& inv_std, float clip) {
  plan.plan().set_normalizer(numbers<float>(mean, "mean", {plan.obs_size()}),
                             numbers<float>(inv_std, "inv_std", {plan.obs_size()}), clip);
}

void set_action_bounds(NativeRecurrent& plan, const ArrayIn& low, const ArrayIn& high) {
  plan.plan().set_action_bounds(numbers<float>(low, "low", {plan.num_actions()}),
                                numbers<float>(high, "high", {plan.num_actions()}));
}

void forward(NativeRecurrent& plan, const ArrayIn& obs, const ArrayIn& start, const ArrayOut& h,
             const std::optional<ArrayOut>& c, const ArrayOut& logits_out, const ArrayOut& value_out) {
  const Size count = axis(obs, "obs", 2, 0);
  const auto* const from = numbers<float>(obs, "obs", {count, plan.obs_size()});
  const auto* const starts = numbers<std::uint8_t>(start, "start", {count});
  const Memory memory = memory_of(plan, h, c, count);
  auto* const logits = numbers<float>(logits_out, "logits_out", {count, plan.num_outputs()});
  auto* const value = numbers<float>(value_out, "value_out", {count});
  const nb::gil_scoped_release released;
  plan.plan().forward(from, starts, memory, static_cast<std::ptrdiff_t>(count), logits, value);
}

void act(NativeRecurrent& plan, const ArrayIn& obs, const ArrayIn& start, const ArrayOut& h,
         const std::optional<ArrayOut>& c, std::uint64_t seed, std::uint32_t stream, const ArrayIn& rows,
         const ArrayIn& steps, bool greedy, const ArrayOut& action_out, const ArrayOut& log_prob_out,
         const ArrayOut& value_out, const OptionalArray& mask) {
  const Size count = axis(obs, "obs", 2, 0);
  const auto* const from = numbers<float>(obs, "obs", {count, plan.obs_size()});
  const auto* const starts = numbers<std::uint8_t>(start, "start", {count});
  const Memory memory = memory_of(plan, h, c, count);
  const Noise noise{seed, checked_stream(stream), numbers<std::int64_t>(rows, "rows", {count}),
                    numbers<std::int64_t>(steps, "steps", {count}), greedy};
  const ActOut out = action_arrays(plan.heads(), action_out, log_prob_out, value_out, count);
  const std::uint8_t* const options = mask_of(plan.heads(), mask, count);
  const nb::gil_scoped_release released;
  plan.plan().act(from, starts, static_cast<std::ptrdiff_t>(count), noise, options, out, memory);
}

double rollout(NativeRecurrent& plan, NativePool& pool, const ArrayOut& current_obs, const ArrayOut& current_start,
               const ArrayOut& row_step, const ArrayOut& h, const std::optional<ArrayOut>& c, const ArrayOut& obs,
               const ArrayOut& start, const ArrayOut& action, const ArrayOut& log_prob, const ArrayOut& value,
               const ArrayOut& next_value, const ArrayOut& reward, const ArrayOut& terminated,
               const ArrayOut& truncated, const ArrayOut& final_index, const ArrayOut& final_obs,
               const ArrayOut& episode_return, const ArrayOut& episode_length, const ArrayOut& drawn,
               std::uint64_t seed, std::uint32_t stream, const ArrayIn& rows) {
  const SlabArrays arrays{current_obs,    current_start,  row_step, obs,        start,     action,      log_prob,
                          value,          next_value,     reward,   terminated, truncated, final_index, final_obs,
                          episode_return, episode_length, drawn,    rows};
  const Memory memory = memory_of(plan, h, c, static_cast<Size>(pool.rows().num_rows()));
  const InUse in_use = pool.use("rollout");
  const Slab slab = arrays.checked(pool, plan.heads(), plan.obs_size(), memory);
  Rollout run(plan.plan(), pool.rows(), slab, seed, checked_stream(stream));
  const nb::gil_scoped_release released;
  return run.run();
}

/// The rows of a minibatch, each checked; all of them without an index.
std::vector<std::int32_t> chosen_rows(const OptionalArray& index, Size num_rows) {
  std::vector<std::int32_t> rows;
  if (index.has_value()) {
    const std::int32_t* const from = checked_index(*index, num_rows);
    rows.assign(from, from + index->shape(0));
  } else {
    for (Size i = 0; i < num_rows; ++i) {
      rows.push_back(static_cast<std::int32_t>(i));
    }
  }
  if (rows.empty()) {
    throw std::invalid_argument("index must name at least 1 row, not 0");
  }
  return rows;
}

/// A step's arguments, checked.
struct StepArguments {
  StepArguments(const NativeRecurrent& plan, std::string_view name, const NativeSequences& sequences,
                const ArrayIn& index, const SettingsDict& given, const ArrayOut& stats_out)
      : loss(find_loss(plan.plan().kernels(), plan.heads(), name)), settings(loss, given) {
    sequences.check_fit(plan);
    sequences.samples().find_columns(loss, columns);
    const std::int32_t* const rows = checked_index(index, sequences.num_rows());
    const auto least = static_cast<Size>(loss.least_samples(settings.values()));
    if (index.shape(0) < 1 || index.shape(0) * sequences.num_steps() < least) {
      throw std::invalid_argument("index must name rows of at least " + std::to_string(least) + " steps, not " +
                                  std::to_string(index.shape(0) * sequences.num_steps()));
    }
    batch = sequences.pick(rows, index.shape(0), columns);
    stats = numbers<double>(stats_out, "stats_out", {static_cast<Size>(loss.num_stats) + 1});
  }

  [[nodiscard]] LossCall call() const noexcept { return {loss, settings.values()}; }

  const LossKernels& loss;
  Settings settings;
  const float* columns[max_loss_members] = {};
  SequenceBatch batch{};
  double* stats = nullptr;
};

void loss_gradient(NativeRecurrent& plan, std::string_view name, const NativeSequences& sequences, const ArrayIn& index,
                   const SettingsDict& settings, const ArrayOut& grad_out, const ArrayOut& stats_out) {
  const StepArguments given(plan, name, sequences, index, settings, stats_out);
  auto* const grad = numbers<float>(grad_out, "grad_out", {plan.num_params()});
  const nb::gil_scoped_release released;
  plan.plan().loss_gradient(given.call(), given.batch, grad, given.stats);
}

bool loss_step(NativeRecurrent& plan, std::string_view name, const NativeSequences& sequences, const ArrayIn& index,
               const SettingsDict& settings, NativeOptimizer& optimizer, double max_grad_norm,
               const ArrayOut& stats_out) {
  const StepArguments given(plan, name, sequences, index, settings, stats_out);
  optimizer.check_fit(plan.num_params());
  const double limit = checked_norm(max_grad_norm);
  const nb::gil_scoped_release released;
  return plan.plan().loss_step(given.call(), given.batch, optimizer.state(), limit, given.stats);
}

void forward_train(NativeRecurrent& plan, const NativeSequences& sequences, const OptionalArray& index,
                   const ArrayOut& logits_out, const ArrayOut& value_out) {
  sequences.check_fit(plan);
  const std::vector<std::int32_t> rows = chosen_rows(index, sequences.num_rows());
  auto* const logits =
      numbers<float>(logits_out, "logits_out", {sequences.num_steps(), rows.size(), plan.num_outputs()});
  auto* const value = numbers<float>(value_out, "value_out", {sequences.num_steps(), rows.size()});
  const SequenceBatch batch = sequences.pick(rows.data(), rows.size(), nullptr);
  const nb::gil_scoped_release released;
  plan.plan().forward_train(batch, logits, value);
}

void backward(NativeRecurrent& plan, const ArrayIn& logits_grad, const ArrayIn& value_grad, const ArrayOut& grad_out) {
  const auto kept = plan.plan().kept();
  const auto steps = static_cast<Size>(kept.steps);
  const auto count = static_cast<Size>(kept.count);
  if (steps == 0) {
    throw std::invalid_argument("backward needs the activations of forward_train, once each: call that first");
  }
  const auto* const logits = numbers<float>(logits_grad, "logits_grad", {steps, count, plan.num_outputs()});
  const auto* const value = numbers<float>(value_grad, "value_grad", {steps, count});
  auto* const grad = numbers<float>(grad_out, "grad_out", {plan.num_params()});
  const nb::gil_scoped_release released;
  plan.plan().backward(kept, logits, value, grad);
}

void bind_sequences(const nb::module_& module) {
  nb::class_<NativeSequences>(module, "Sequences",
                              "Samples [T * B] as the sequences of B rows, checked once; nothing is copied.")
      .def(nb::init<const NativeSamples&, const ArrayIn&, const ArrayIn&, const OptionalArray&, const OptionalArray&>(),
           nb::keep_alive<1, 2>(), "samples"_a, "start"_a.noconvert(), "h"_a.noconvert(),
           "c"_a.noconvert() = nb::none(), nb::kw_only(), "valid"_a.noconvert() = nb::none(),
           "start: uint8 or bool [T, B], where the memory is zeroed before the step. h, and c of an LSTM: float32 "
           "[B, H], the memory before step 0. valid: uint8 or bool [T, B], the steps that a loss counts; None: all.")
      .def("__len__", &NativeSequences::num_rows);
}

void bind_acting(nb::class_<NativeRecurrent>& plan) {
  plan.def_prop_ro("num_params", &NativeRecurrent::num_params);
  plan.def_prop_ro("num_threads", [](const NativeRecurrent& self) { return self.plan().num_threads(); });
  plan.def_prop_ro("act_block", [](const NativeRecurrent& self) { return self.plan().act_block(); });
  plan.def(
      "rows_per_block",
      [](const NativeRecurrent& self, int num_agents, int count) {
        return checked_rows_per_block(self.plan(), num_agents, count);
      },
      "num_agents"_a, "count"_a, "Rows of a rollout of `count` rows that act together on one thread.");
  plan.def_prop_ro("grad_shards", [](const NativeRecurrent& self) { return self.plan().grad_shards(); });
  plan.def_prop_ro("kernels", [](const NativeRecurrent& self) { return self.plan().kernels().name; });
  plan.def("set_normalizer", &set_normalizer, "mean"_a.noconvert(), "inv_std"_a.noconvert(), "clip"_a,
           "Observations become clip((x - mean) * inv_std, -clip, clip); the numbers are copied.");
  plan.def("set_action_bounds", &set_action_bounds, "low"_a.noconvert(), "high"_a.noconvert(),
           "What rollout clips a Gaussian's actions to before the environment sees them.");
  plan.def("forward", &forward, "obs"_a.noconvert(), "start"_a.noconvert(), "h"_a.noconvert(), "c"_a.noconvert().none(),
           "logits_out"_a.noconvert(), "value_out"_a.noconvert(),
           "Logits (or means) [N, A] and values [N] of observations [N, D] that follow the memory h [N, H] (and c of "
           "an LSTM), zeroed where start [N] is true. The memory stays as it is.");
  plan.def("act", &act, "obs"_a.noconvert(), "start"_a.noconvert(), "h"_a.noconvert(), "c"_a.noconvert().none(),
           "seed"_a, "stream"_a, "rows"_a.noconvert(), "steps"_a.noconvert(), "greedy"_a, "action_out"_a.noconvert(),
           "log_prob_out"_a.noconvert(), "value_out"_a.noconvert(), nb::kw_only(), "mask"_a.noconvert() = nb::none(),
           "Actions drawn with the Philox noise of (seed, stream, row, step), or greedy; h and c advance in place. "
           "mask: uint8 or bool [N, A], all choices side by side, 0 where an option is not to be chosen.");
}

void bind_rollout(nb::class_<NativeRecurrent>& plan) {
  plan.def("rollout", &rollout, "pool"_a, "current_obs"_a.noconvert(), "current_start"_a.noconvert(),
           "row_step"_a.noconvert(), "h"_a.noconvert(), "c"_a.noconvert().none(), "obs"_a.noconvert(),
           "start"_a.noconvert(), "action"_a.noconvert(), "log_prob"_a.noconvert(), "value"_a.noconvert(),
           "next_value"_a.noconvert(), "reward"_a.noconvert(), "terminated"_a.noconvert(), "truncated"_a.noconvert(),
           "final_index"_a.noconvert(), "final_obs"_a.noconvert(), "episode_return"_a.noconvert(),
           "episode_length"_a.noconvert(), "drawn"_a.noconvert(), "seed"_a, "stream"_a, "rows"_a.noconvert(),
           "Acts in and steps all of the pool's rows for T steps and fills the slab; h [B, H] and c advance in place. "
           "rows [B]: their numbers in the noise. Returns the share of the time in which the rows stepped.");
}

void bind_steps(nb::class_<NativeRecurrent>& plan) {
  plan.def("loss_gradient", &loss_gradient, "name"_a, "sequences"_a, "index"_a.noconvert(), "settings"_a,
           "grad_out"_a.noconvert(), "stats_out"_a.noconvert(),
           "The gradient of a fused loss over the rows that index names, unclipped; stats_out as in loss_step.");
  plan.def("loss_step", &loss_step, "name"_a, "sequences"_a, "index"_a.noconvert(), "settings"_a, "optimizer"_a,
           "max_grad_norm"_a, "stats_out"_a.noconvert(),
           "One step on a fused loss over all steps of the rows that index, int32 [M], names. stats_out, float64, gets "
           "the loss's statistics and then the gradient's norm. False where that is not finite: then nothing else has "
           "changed.");
  plan.def("forward_train", &forward_train, "sequences"_a, "index"_a.noconvert().none(), "logits_out"_a.noconvert(),
           "value_out"_a.noconvert(),
           "Logits (or means) [T, M, A] and values [T, M] of the rows that index [M] names (None: all); keeps what "
           "backward needs. Logits are not masked.");
  plan.def("backward", &backward, "logits_grad"_a.noconvert(), "value_grad"_a.noconvert(), "grad_out"_a.noconvert(),
           "The parameters' gradient [P] through time, from those of forward_train's logits [T, M, A] and values "
           "[T, M]; once for each forward_train. log_std is no output of the network: its part is 0.");
}

}  // namespace
}  // namespace shoal

void bind_net_recurrent(const nb::module_& module) {
  using namespace shoal;
  bind_sequences(module);
  nb::class_<NativeRecurrent> plan(
      module, "RecurrentPlan",
      "A policy with a GRU or LSTM in native code that shares its owner's parameters: a body of Linear layers, the "
      "cell, two linear heads.");
  plan.def(
      "__init__",
      [](NativeRecurrent* self, const ArrayOut& params, int obs_size, const std::vector<int>& hidden,
         const std::string& cell, int recurrent_size, const std::string& head, const std::vector<int>& action_nvec,
         const std::string& activation, int num_threads, int act_block, int grad_shards, const std::string& kernels) {
        check_sizes({obs_size, recurrent_size, largest(action_nvec)}, hidden, act_block, grad_shards);
        new (self)
            NativeRecurrent(make_recurrent_net({obs_size, hidden, cell, recurrent_size, head, action_nvec, activation}),
                            params, num_threads, act_block, grad_shards, kernels);
      },
      "params"_a.noconvert(), "obs_size"_a, "hidden"_a, "cell"_a, "recurrent_size"_a, "head"_a, "action_nvec"_a,
      "activation"_a, "num_threads"_a, "act_block"_a, "grad_shards"_a, "kernels"_a = "");
  bind_acting(plan);
  bind_rollout(plan);
  bind_steps(plan);
}
