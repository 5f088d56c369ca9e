// A policy with a GRU or LSTM in native code: forward and acting with the rows' memory, gradients of fused losses and
// of any output gradient through time, optimizer steps, on a team of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <mutex>
#include <string_view>

#include "net/plan.hpp"
#include "net/recurrent_layout.hpp"
#include "net/recurrent_scratch.hpp"

namespace shoal {

/// Whole sequences of rows that a minibatch picks: sample t * num_rows + row of `samples`, `start` and `valid`.
struct SequenceBatch {
  Minibatch samples;  ///< its index and count are not read
  const std::uint8_t* start;
  const std::uint8_t* valid;  ///< steps that count; null: all
  const float* h;             ///< [num_rows, size]: the memory before step 0
  const float* c;
  std::ptrdiff_t num_steps;
  std::ptrdiff_t num_rows;
  const std::int32_t* rows;  ///< which rows
  std::ptrdiff_t count;      ///< of rows
};

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

  /// x -> clip((x - mean) * inv_std, -clip, clip) before the body.
  void set_normaliser(const float* mean, const float* inv_std, float clip) {
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
    kept_steps_ = batch.num_steps;
    kept_count_ = batch.count;
    reserve_tapes(batch.num_steps, batch.count, true);
    kernels_.recurrent.pack(net_, params_, true, packed_.data());
    run_chunks(kept_steps_, kept_count_, true, [&](RecurrentShardMemory& shard, TapeMemory& memory, Part rows) {
      const Tape tape = memory.tape(static_cast<int>(kept_steps_), static_cast<int>(rows.count));
      kernels_.recurrent.forward(net_, weights(), sequences(batch, rows, memory), tape, shard.chunk.space(),
                                 {rows.first, kept_count_}, logits, value);
    });
  }

  /// The steps and rows that forward_train has kept; 0 before it.
  [[nodiscard]] std::ptrdiff_t kept_steps() const noexcept { return kept_steps_; }
  [[nodiscard]] std::ptrdiff_t kept_count() const noexcept { return kept_count_; }

  /// Gradient of the parameters into `grad`, from those of the kept minibatch's logits and values. The tapes are used
  /// up.
  void backward(const float* logit_slopes, const float* value_slopes, float* grad) {
    const std::scoped_lock lock(mutex_);
    run_chunks(kept_steps_, kept_count_, true, [&](RecurrentShardMemory& shard, TapeMemory& memory, Part rows) {
      const Tape tape = memory.tape(static_cast<int>(kept_steps_), static_cast<int>(rows.count));
      kernels_.recurrent.backward(net_, weights(), tape, shard.chunk.space(), {rows.first, kept_count_}, logit_slopes,
                                  value_slopes, shard.sums());
    });
    kept_steps_ = 0;
    shards_.add();
    shards_.copy_gradient(grad);
  }

 private:
  template <class Plan>
  friend class Rollout;

  [[nodiscard]] int num_actions() const noexcept { return net_.heads.num_actions; }
  [[nodiscard]] const int* action_nvec() const noexcept { return net_.heads.nvec; }
  [[nodiscard]] RecurrentWeights weights() const noexcept { return {params_, packed_.data()}; }

  [[nodiscard]] Memory memory_from(const Memory& memory, std::ptrdiff_t row) const noexcept {
    return {memory.h + row * net_.size, memory.c == nullptr ? nullptr : memory.c + row * net_.size};
  }

  /// Takes the parameters over, as they are now.
  void begin_acting() noexcept { kernels_.recurrent.pack(net_, params_, false, packed_.data()); }

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

  /// Rows that pass through the tape together: few enough for the caches, enough to fill the products' tiles.
  static std::ptrdiff_t num_chunks(std::ptrdiff_t steps, std::ptrdiff_t rows) noexcept {
    constexpr std::ptrdiff_t samples = 512;
    constexpr std::ptrdiff_t fewest = 8;
    const std::ptrdiff_t most = std::max(samples / steps, fewest);
    return (rows + most - 1) / most;
  }

  /// Tapes for every shard's largest chunk, or with `keep` for each of its chunks.
  void reserve_tapes(std::ptrdiff_t steps, std::ptrdiff_t count, bool keep) {
    for (int shard = 0; shard < grad_shards(); ++shard) {
      const std::ptrdiff_t rows = shards_.part(shard, count).count;
      const std::ptrdiff_t chunks = num_chunks(steps, rows);
      std::vector<TapeMemory>& tapes = shards_[shard].tapes;
      const std::size_t needed = keep ? static_cast<std::size_t>(chunks) : 1;
      while (tapes.size() < needed) {
        tapes.emplace_back();
      }
      for (std::size_t i = 0; i < needed && chunks > 0; ++i) {
        tapes[i].reserve(net_, steps, (rows + chunks - 1) / chunks);
      }
    }
  }

  /// work(shard, tape's memory, rows) for every shard's chunks of rows; the shards run side by side, and finish their
  /// gradients.
  template <class Work>
  void run_chunks(std::ptrdiff_t steps, std::ptrdiff_t count, bool keep, Work&& work) noexcept {
    shards_.run(count, [&](RecurrentShardMemory& shard, Part rows) {
      const std::ptrdiff_t chunks = num_chunks(steps, rows.count);
      clear(shard.sequence_sums.data(), net_.num_sums);
      clear(shard.head_sums.data(), net_.heads.num_sums);
      shard.totals = LossSums{};
      for (std::ptrdiff_t k = 0; k < chunks; ++k) {
        const std::ptrdiff_t first = rows.count * k / chunks;
        const std::ptrdiff_t end = rows.count * (k + 1) / chunks;
        work(shard, shard.tapes[keep ? static_cast<std::size_t>(k) : 0], Part{rows.first + first, end - first});
      }
      kernels_.recurrent.finish(net_, shard.sums(), shard.grad.data());
    });
  }

  static void clear(float* values, std::ptrdiff_t size) noexcept { std::fill_n(values, size, 0.0F); }

  /// The chosen rows' sequences, the number of each sample written into the tape's index.
  [[nodiscard]] static SequenceIn sequences(const SequenceBatch& batch, Part rows, const TapeMemory& memory) noexcept {
    std::int32_t* const index = memory.index();
    for (std::ptrdiff_t t = 0; t < batch.num_steps; ++t) {
      for (std::ptrdiff_t i = 0; i < rows.count; ++i) {
        index[t * rows.count + i] = static_cast<std::int32_t>(t * batch.num_rows + batch.rows[rows.first + i]);
      }
    }
    return {batch.samples.obs, batch.start, index, batch.h, batch.c, batch.rows + rows.first};
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
    reserve_tapes(batch.num_steps, batch.count, false);
    count_samples(batch);
    kernels_.recurrent.pack(net_, params_, true, packed_.data());
    Minibatch counted = batch.samples;
    counted.index = counted_.data();
    counted.count = static_cast<std::ptrdiff_t>(counted_.size());
    PreparedLoss prepared;
    call.loss.prepare(call.settings, counted, prepared);
    const StepWeights step_weights{
        batch.valid, static_cast<float>(1.0 / static_cast<double>(std::max<std::ptrdiff_t>(counted.count, 1)))};
    const SequenceGradient gradient = kernels_.sequence_gradients[&call.loss - kernels_.losses];
    run_chunks(batch.num_steps, batch.count, false, [&](RecurrentShardMemory& shard, TapeMemory& memory, Part rows) {
      const SequenceIn in = sequences(batch, rows, memory);
      Minibatch here = batch.samples;
      here.index = in.index;
      here.count = batch.num_steps * rows.count;
      gradient(net_, weights(), in, here, step_weights, prepared,
               memory.tape(static_cast<int>(batch.num_steps), static_cast<int>(rows.count)), shard.chunk.space(),
               shard.sums(), shard.totals);
    });
    const double norm = shards_.add();
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
  Shards<RecurrentShardMemory> shards_;
  ActPool<ActMemory> act_pool_;
  std::ptrdiff_t kept_steps_ = 0;
  std::ptrdiff_t kept_count_ = 0;
  std::mutex mutex_;
};

}  // namespace shoal
