// A policy with a GRU or LSTM in native code: forward and acting with the rows' memory, gradients of fused losses and
// of any output gradient through time, optimizer steps, on a team of threads.
#pragma once

#include <algorithm>
#include <mutex>
#include <string_view>

#include "net/plan.hpp"
#include "net/recurrent_layout.hpp"
#include "net/recurrent_shards.hpp"

namespace shoal {

/// Shares its owner's parameters: the learner's updates are seen by the next call. Calls on one plan wait for each
/// other. Bits depend on grad_shards and on the instruction set, never on num_threads or act_block.
class RecurrentPlan {
 public:
  using ActMemory = RecurrentActMemory;

  RecurrentPlan(const RecurrentNet& net, float* params, int num_threads, int act_block, int grad_shards,
                std::string_view kernels)
      : net_(net),
        params_(params),
        act_block_(at_least_one(act_block, "act_block")),
        kernels_(find_kernels(kernels)),
        packed_(net.num_packed),
        team_(num_threads),
        shards_(net_, grad_shards, kernels_, team_),
        act_pool_(num_threads, net_, act_block) {}

  [[nodiscard]] const RecurrentNet& net() const noexcept { return net_; }
  [[nodiscard]] const Kernels& kernels() const noexcept { return kernels_; }
  [[nodiscard]] int num_threads() const noexcept { return team_.num_threads(); }
  [[nodiscard]] int act_block() const noexcept { return act_block_; }
  [[nodiscard]] int grad_shards() const noexcept { return shards_.count(); }

  /// Rows of `count` that act together on one thread. Bits do not depend on it: few rows are cut into four blocks for
  /// the team, unless they become too small, and no environment is cut in two unless act_block does.
  [[nodiscard]] int rows_per_block(int num_agents, std::ptrdiff_t count) const noexcept {
    constexpr int fewest = 16;
    constexpr std::ptrdiff_t blocks = 4;
    int rows = act_block_;
    while (rows * blocks > count && rows > fewest && rows % 2 == 0 && rows / 2 % num_agents == 0) {
      rows /= 2;
    }
    return rows;
  }

  /// x -> clip((x - mean) * inv_std, -clip, clip) before the body.
  void set_normalizer(const float* mean, const float* inv_std, float clip) {
    const std::scoped_lock lock(mutex_);
    mean_.assign(mean, mean + net_.obs_size);
    inv_std_.assign(inv_std, inv_std + net_.obs_size);
    net_.mean = mean_.data();
    net_.inv_std = inv_std_.data();
    net_.clip = clip;
  }

  /// What a Gaussian's actions are clipped to before the environment sees them.
  void set_action_bounds(const float* low, const float* high) {
    const std::scoped_lock lock(mutex_);
    action_low_.assign(low, low + net_.heads.num_actions);
    action_high_.assign(high, high + net_.heads.num_actions);
  }

  /// Logits and values, each may be null, of `count` observations after the memory `before`; nothing advances.
  void forward(const float* obs, const std::uint8_t* start, const Memory& before, std::ptrdiff_t count, float* logits,
               float* value) {
    const std::scoped_lock lock(mutex_);
    begin_acting();
    run_blocks(count, [&](ActMemory& memory, std::ptrdiff_t first, std::ptrdiff_t many) {
      const Memory here = memory_from(before, first);
      const SequenceIn in{
          obs + first * net_.obs_size, start == nullptr ? nullptr : start + first, nullptr, here.h, here.c, nullptr};
      kernels_.recurrent.forward(net_, weights(), in, memory.tape.tape(1, static_cast<int>(many)), memory.chunk.space(),
                                 {0, many}, logits == nullptr ? nullptr : logits + first * net_.heads.num_outputs,
                                 value == nullptr ? nullptr : value + first);
    });
  }

  /// One step of `count` rows, whose memory advances in place. mask: [count, num_outputs], or null.
  void act(const float* obs, const std::uint8_t* start, std::ptrdiff_t count, const Noise& noise,
           const std::uint8_t* mask, const ActOut& out, const Memory& memory) {
    const std::scoped_lock lock(mutex_);
    begin_acting();
    run_blocks(count, [&](ActMemory& scratch, std::ptrdiff_t first, std::ptrdiff_t many) {
      Noise here = noise;
      here.rows += first;
      here.steps += first;
      const std::ptrdiff_t actions = first * net_.heads.num_actions;
      act_rows(obs + first * net_.obs_size, start + first, many, here,
               mask == nullptr ? nullptr : mask + first * net_.heads.num_outputs, scratch,
               {out.choice == nullptr ? nullptr : out.choice + actions,
                out.action == nullptr ? nullptr : out.action + actions, out.log_prob + first, out.value + first},
               memory_from(memory, first));
    });
  }

  /// The loss's gradient into `grad`, before any clipping; its statistics and then the gradient's norm into `stats`.
  void loss_gradient(const LossCall& call, const SequenceBatch& batch, float* grad, double* stats) {
    const std::scoped_lock lock(mutex_);
    fused_gradient(call, batch, stats);
    shards_.copy_gradient(grad);
  }

  /// One gradient step on the loss. False and nothing changed, but `stats`, where the gradient is not finite.
  bool loss_step(const LossCall& call, const SequenceBatch& batch, Optimizer& optimizer, double max_grad_norm,
                 double* stats) {
    const std::scoped_lock lock(mutex_);
    const double norm = fused_gradient(call, batch, stats);
    return shards_.apply(optimizer, norm, max_grad_norm, params_);
  }

  /// Logits [num_steps, count, A] and values [num_steps, count] of a minibatch. Keeps the tapes for `backward`.
  void forward_train(const SequenceBatch& batch, float* logits, float* value) {
    const std::scoped_lock lock(mutex_);
    shards_.cut(batch.num_steps, batch.count, true);
    kernels_.recurrent.pack(net_, params_, true, packed_.data());
    shards_.run_chunks([&](const Chunk& chunk) {
      kernels_.recurrent.forward(net_, weights(), chunk.sequences(batch), chunk.tape, chunk.shard.chunk.space(),
                                 {chunk.rows.first, batch.count}, logits, value);
    });
    kept_ = {batch.num_steps, batch.count};
  }

  /// Steps and rows of a minibatch.
  struct Kept {
    std::ptrdiff_t steps = 0;
    std::ptrdiff_t count = 0;
    bool operator==(const Kept&) const = default;
  };
  /// What forward_train has kept; no steps before it, and once another gradient has used their memory.
  [[nodiscard]] Kept kept() {
    const std::scoped_lock lock(mutex_);
    return kept_;
  }

  /// Gradient of the parameters into `grad`, from those of the kept minibatch's logits and values. The tapes are used
  /// up. std::invalid_argument where another thread has kept or used others since.
  void backward(Kept kept, const float* logit_slopes, const float* value_slopes, float* grad) {
    const std::scoped_lock lock(mutex_);
    require_kept(kept == kept_);
    kernels_.recurrent.pack(net_, params_, true, packed_.data());
    shards_.add_chunks([&](const Chunk& chunk) {
      kernels_.recurrent.backward(net_, weights(), chunk.tape, chunk.shard.chunk.space(),
                                  {chunk.rows.first, kept_.count}, logit_slopes, value_slopes, chunk.shard.sums());
    });
    kept_ = {};
    shards_.copy_gradient(grad);
  }

 private:
  template <class Plan>
  friend class Rollout;
  template <class Plan>
  friend class RolloutSteps;

  [[nodiscard]] int num_actions() const noexcept { return net_.heads.num_actions; }
  [[nodiscard]] const int* action_nvec() const noexcept { return net_.heads.nvec; }
  [[nodiscard]] RecurrentWeights weights() const noexcept { return {params_, packed_.data()}; }

  [[nodiscard]] Memory memory_from(const Memory& memory, std::ptrdiff_t row) const noexcept {
    return {memory.h + row * net_.size, memory.c == nullptr ? nullptr : memory.c + row * net_.size};
  }

  /// Takes the parameters over, as they are now.
  void begin_acting() noexcept { kernels_.recurrent.pack(net_, params_, false, packed_.data()); }
  /// work(memory, first row, how many) for all blocks of rows, side by side.
  template <class Work>
  void run_blocks(std::ptrdiff_t count, Work&& work) noexcept {
    const std::ptrdiff_t size = rows_per_block(1, count);
    team_.run(static_cast<int>((count + size - 1) / size), [&](int block) {
      const typename ActPool<ActMemory>::Lease memory(act_pool_);
      const std::ptrdiff_t first = block * size;
      work(*memory, first, std::min(size, count - first));
    });
  }

  void act_rows(const float* obs, const std::uint8_t* start, std::ptrdiff_t count, const Noise& noise,
                const std::uint8_t* mask, ActMemory& scratch, const ActOut& out, const Memory& memory) noexcept {
    const SequenceIn in{obs, start, nullptr, memory.h, memory.c, nullptr};
    kernels_.recurrent.act(net_, weights(), in, noise, mask, scratch.tape.tape(1, static_cast<int>(count)),
                           scratch.chunk.space(), out, memory.h, memory.c);
  }

  /// Values of observations that follow the last step of the block's `rows` (null: of all of them, in order).
  void value_rows(const float* obs, const std::int32_t* rows, std::ptrdiff_t count, ActMemory& scratch, float* value,
                  const Memory& memory) noexcept {
    const SequenceIn in{obs, nullptr, nullptr, memory.h, memory.c, rows};
    kernels_.recurrent.forward(net_, weights(), in, scratch.tape.tape(1, static_cast<int>(count)),
                               scratch.chunk.space(), {0, count}, nullptr, value);
  }

  /// The samples of the minibatch that count, step by step.
  void count_samples(const SequenceBatch& batch) {
    counted_.clear();
    for (std::ptrdiff_t t = 0; t < batch.num_steps; ++t) {
      for (std::ptrdiff_t i = 0; i < batch.count; ++i) {
        const std::ptrdiff_t sample = t * batch.num_rows + batch.rows[i];
        if (batch.valid == nullptr || batch.valid[sample] != 0) {
          counted_.push_back(static_cast<std::int32_t>(sample));
        }
      }
    }
  }

  /// Leaves the gradient with the first shard; returns its norm.
  double fused_gradient(const LossCall& call, const SequenceBatch& batch, double* stats) {
    kept_ = {};
    shards_.cut(batch.num_steps, batch.count, false);
    count_samples(batch);
    kernels_.recurrent.pack(net_, params_, true, packed_.data());
    Minibatch counted = batch.samples;
    counted.index = counted_.data();
    counted.count = static_cast<std::ptrdiff_t>(counted_.size());
    PreparedLoss prepared;
    call.loss.prepare(call.settings, counted, prepared);
    const auto size = static_cast<double>(std::max<std::ptrdiff_t>(counted.count, 1));
    const StepWeights step_weights{batch.valid, static_cast<float>(1.0 / size)};
    const SequenceGradient gradient = kernels_.sequence_gradients[&call.loss - kernels_.losses];
    const double norm = shards_.add_chunks([&](const Chunk& chunk) {
      const SequenceIn in = chunk.sequences(batch);
      Minibatch here = batch.samples;
      here.index = in.index;
      here.count = batch.num_steps * chunk.rows.count;
      gradient(net_, weights(), in, here, step_weights, prepared, chunk.tape, chunk.shard.chunk.space(),
               chunk.shard.sums(), chunk.shard.totals);
    });
    shards_.write_stats(call.loss.num_stats, norm, stats);
    return norm;
  }

  RecurrentNet net_;
  float* params_;
  int act_block_;
  const Kernels& kernels_;
  Buffer<float> packed_;
  std::vector<std::int32_t> counted_;
  std::vector<float> mean_, inv_std_, action_low_, action_high_;
  Team team_;
  SequenceShards shards_;
  ActPool<ActMemory> act_pool_;
  Kept kept_;
  std::mutex mutex_;
};

}  // namespace shoal
