// A policy of two MLP towers, a Q-network or another single tower, in native code: forward, acting, gradients of fused
// losses and of any output gradient, optimizer steps, on a team of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/dispatch.hpp"
#include "net/layout.hpp"
#include "net/scratch.hpp"
#include "net/shared_shards.hpp"
#include "sync/shared_team.hpp"

namespace shoal {

/// A fused loss and its settings, in the order of their names.
struct LossCall {
  const LossKernels& loss;
  const float* settings;
};

/// What rows remember, [rows, size]: h of a GRU, h and c of an LSTM, nothing of a policy of towers.
struct Memory {
  float* h;
  float* c;
};

/// std::invalid_argument where what a backward was checked against is no longer what is kept.
inline void require_kept(bool kept) {
  if (!kept) {
    throw std::invalid_argument("backward: another thread has called forward_train of this plan in between");
  }
}

/// Shares its owner's parameters: the learner's updates are seen by the next call. Calls on one plan, or on
/// plans of one team, wait for each other. Bits depend on grad_shards and on the instruction set, never on num_threads
/// or act_block.
class MlpPlan {
 public:
  using ActMemory = shoal::ActMemory;

  MlpPlan(const Net& net, float* params, std::shared_ptr<SharedTeam> team, int act_block, int grad_shards,
          std::string_view kernels)
      : net_(net),
        params_(params),
        act_block_(at_least_one(act_block, "act_block")),
        kernels_(find_kernels(kernels)),
        shared_(std::move(team)),
        team_(shared_->team),
        shards_(shared_shards(*shared_, net_, grad_shards, kernels_)),
        kept_(static_cast<std::size_t>(grad_shards)),
        act_pool_(team_.num_threads(), net_, act_block),
        mutex_(shared_->mutex) {}
  MlpPlan(const MlpPlan&) = delete;
  MlpPlan& operator=(const MlpPlan&) = delete;
  ~MlpPlan() = default;

  [[nodiscard]] const Net& net() const noexcept { return net_; }
  [[nodiscard]] const Kernels& kernels() const noexcept { return kernels_; }
  [[nodiscard]] int num_threads() const noexcept { return team_.num_threads(); }
  [[nodiscard]] int act_block() const noexcept { return act_block_; }
  [[nodiscard]] int grad_shards() const noexcept { return shards_->count(); }
  [[nodiscard]] const float* params() const noexcept { return params_; }

  /// Rows of a rollout that act together on one thread. Bits do not depend on it: few rows are cut into a block for
  /// each thread, unless they become too small, and no environment is cut in two.
  [[nodiscard]] int rows_per_block(int num_agents, std::ptrdiff_t count) const noexcept {
    constexpr std::ptrdiff_t fewest = 8;
    const std::ptrdiff_t share = std::max((count + num_threads() - 1) / num_threads(), fewest);
    const std::ptrdiff_t whole = (share + num_agents - 1) / num_agents * num_agents;
    return static_cast<int>(std::min<std::ptrdiff_t>(whole, act_block_));
  }

  /// x -> clip((x - mean) * inv_std, -clip, clip) before both towers.
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
    action_low_.assign(low, low + net_.num_actions);
    action_high_.assign(high, high + net_.num_actions);
  }

  /// value may be null.
  void forward(const float* obs, std::ptrdiff_t count, float* logits, float* value) {
    const std::scoped_lock lock(mutex_);
    team_.run(num_blocks(count), [&](int block) {
      const ActPool<ActMemory>::Lease memory(act_pool_);
      const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(block) * act_block_;
      kernels_.forward(net_, params_, obs + first * net_.obs_size, block_size(first, count), memory->chunk.space(),
                       logits + first * net_.num_outputs, value == nullptr ? nullptr : value + first);
    });
  }

  /// mask: [count, num_outputs] of a categorical head, or null.
  void act(const float* obs, std::ptrdiff_t count, const Noise& noise, const std::uint8_t* mask, const ActOut& out) {
    const std::scoped_lock lock(mutex_);
    team_.run(num_blocks(count), [&](int block) {
      const ActPool<ActMemory>::Lease memory(act_pool_);
      const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(block) * act_block_;
      Noise here = noise;
      here.rows += first;
      here.steps += first;
      here.epsilon = noise.epsilon == nullptr ? nullptr : noise.epsilon + first;
      const std::ptrdiff_t actions = first * net_.num_actions;
      kernels_.act(net_, params_, obs + first * net_.obs_size, block_size(first, count), here,
                   mask == nullptr ? nullptr : mask + first * net_.num_outputs, memory->chunk.space(),
                   {out.choice == nullptr ? nullptr : out.choice + actions,
                    out.action == nullptr ? nullptr : out.action + actions, out.log_prob + first, out.value + first});
    });
  }

  /// The loss's gradient into `grad`, before any clipping; its statistics and then the gradient's norm into `stats`.
  void loss_gradient(const LossCall& call, const Minibatch& batch, float* grad, double* stats) {
    const std::scoped_lock lock(mutex_);
    fused_gradient(call, batch, stats);
    shards_->copy_gradient(grad);
  }

  /// One gradient step on the loss. False and nothing changed, but `stats`, where the gradient is not finite.
  bool loss_step(const LossCall& call, const Minibatch& batch, Optimizer& optimizer, double max_grad_norm,
                 double* stats) {
    const std::scoped_lock lock(mutex_);
    const double norm = fused_gradient(call, batch, stats);
    return shards_->apply(optimizer, norm, max_grad_norm, params_);
  }

  /// Logits and values of a minibatch (of all `count` rows without an index). Keeps the activations for `backward`.
  void forward_train(const float* obs, const std::int32_t* index, std::ptrdiff_t count, float* logits, float* value) {
    const std::scoped_lock lock(mutex_);
    for (int shard = 0; shard < grad_shards(); ++shard) {
      kept_[static_cast<std::size_t>(shard)].reserve(net_, shards_->part(shard, count).count);
    }
    kept_count_ = count;
    run_kept([&](ShardMemory& memory, float* kept, Part part) {
      kernels_.forward_kept(net_, params_, obs, index, part.first, part.count, memory.chunk.space(), kept, logits,
                            value);
    });
  }

  /// The size of the minibatch that forward_train has kept; 0 before it.
  [[nodiscard]] std::ptrdiff_t kept_count() {
    const std::scoped_lock lock(mutex_);
    return kept_count_;
  }

  /// Gradient of the parameters into `grad`, from those of the kept minibatch's `count` logits and values; and of its
  /// observations into obs_slopes; each may be null. std::invalid_argument where another thread's forward_train has
  /// kept another number since.
  void backward(std::ptrdiff_t count, const float* logit_slopes, const float* value_slopes, float* grad,
                float* obs_slopes) {
    const std::scoped_lock lock(mutex_);
    require_kept(count == kept_count_);
    run_kept([&](ShardMemory& memory, float* kept, Part part) {
      kernels_.backward_kept(net_, params_, kept, part.first, part.count, logit_slopes, value_slopes,
                             memory.chunk.space(), grad == nullptr ? nullptr : memory.sums.data(), memory.grad.data(),
                             obs_slopes);
    });
    if (grad != nullptr) {
      shards_->add();
      shards_->copy_gradient(grad);
    }
  }

 private:
  template <class Plan>
  friend class Rollout;
  template <class Plan>
  friend class RolloutSteps;
  friend class LinkedRollout;

  // What a rollout asks of a plan besides its memory for acting.
  [[nodiscard]] int num_actions() const noexcept { return net_.num_actions; }
  [[nodiscard]] const int* action_nvec() const noexcept { return net_.nvec; }
  [[nodiscard]] Memory memory_from(const Memory& memory, std::ptrdiff_t /*row*/) const noexcept { return memory; }
  void begin_acting() noexcept {}

  void act_rows(const float* obs, const std::uint8_t* /*start*/, std::ptrdiff_t count, const Noise& noise,
                const std::uint8_t* mask, ActMemory& scratch, const ActOut& out, const Memory& /*memory*/) noexcept {
    kernels_.act(net_, params_, obs, count, noise, mask, scratch.chunk.space(), out);
  }

  void value_rows(const float* obs, const std::int32_t* /*rows*/, std::ptrdiff_t count, ActMemory& scratch,
                  float* value, const Memory& /*memory*/) noexcept {
    kernels_.forward(net_, params_, obs, count, scratch.chunk.space(), nullptr, value);
  }

  [[nodiscard]] int num_blocks(std::ptrdiff_t count) const noexcept {
    return static_cast<int>((count + act_block_ - 1) / act_block_);
  }
  [[nodiscard]] std::ptrdiff_t block_size(std::ptrdiff_t first, std::ptrdiff_t count) const noexcept {
    return count - first < act_block_ ? count - first : act_block_;
  }

  /// work(shard's memory, what it keeps, its part) for every shard of the kept minibatch, side by side.
  template <class Work>
  void run_kept(Work&& work) noexcept {
    team_.run(grad_shards(), [&](int shard) {
      work((*shards_)[shard], kept_[static_cast<std::size_t>(shard)].floats.data(), shards_->part(shard, kept_count_));
    });
  }

  /// Leaves the gradient with the first shard; returns its norm.
  double fused_gradient(const LossCall& call, const Minibatch& batch, double* stats) noexcept {
    PreparedLoss prepared;
    call.loss.prepare(call.settings, batch, prepared);
    shards_->run(batch.count, [&](ShardMemory& memory, Part part) {
      call.loss.gradient(net_, params_, batch, part.first, part.count, prepared, memory.chunk.space(),
                         memory.sums.data(), memory.grad.data(), memory.totals);
    });
    const double norm = shards_->add();
    shards_->write_stats(call.loss.num_stats, norm, stats);
    return norm;
  }

  Net net_;
  float* params_;
  int act_block_;
  const Kernels& kernels_;
  std::vector<float> mean_, inv_std_, action_low_, action_high_;
  std::shared_ptr<SharedTeam> shared_;
  Team& team_;
  std::shared_ptr<Shards<ShardMemory>> shards_;
  std::vector<KeptMemory> kept_;  ///< of each shard
  ActPool<ActMemory> act_pool_;
  std::ptrdiff_t kept_count_ = 0;
  std::mutex& mutex_;  ///< the team's
};

}  // namespace shoal
