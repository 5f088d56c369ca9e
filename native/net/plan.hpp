// A policy of two MLP towers lowered to native code: forward, acting, gradients and optimizer steps, on a team of
// threads.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "sync/team.hpp"
#include "net/dispatch.hpp"
#include "net/layout.hpp"
#include "net/scratch.hpp"

namespace shoal {

/// The losses' coefficients as a user gives them. PPO only: clip_coef, clip_vloss.
struct LossConfig {
  bool ppo;
  double clip_coef;
  bool clip_vloss;
  double ent_coef;
  double vf_coef;
  bool norm_adv;
};

struct AdamConfig {
  double learning_rate;
  double eps;
  float* exp_avg;
  float* exp_avg_sq;
  std::int64_t step;  ///< this step's number, from 1 on
};

struct RmsPropConfig {
  double learning_rate;
  double alpha;
  double eps;
  float* square_avg;
};

/// Where ppo_step and a2c_step add a minibatch's statistics.
enum Stat : std::uint8_t {
  policy_loss_stat,
  value_loss_stat,
  entropy_stat,
  approx_kl_stat,
  clip_fraction_stat,
  grad_norm_stat,
  count_stat,
  skipped_stat,
  num_stats
};

/// Shares its owner's parameters: the learner's updates are seen by the next call. Calls on one plan wait for each
/// other. Bits depend on grad_shards and on the instruction set, never on num_threads or act_block.
class MlpPlan {
 public:
  MlpPlan(const MlpConfig& config, float* params, int num_threads, int act_block, int grad_shards,
          std::string_view kernels)
      : net_(make_net(config)),
        params_(params),
        act_block_(at_least_one(act_block, "act_block")),
        kernels_(find_kernels(kernels)),
        team_(num_threads),
        act_pool_(net_, act_block, num_threads) {
    for (int i = 0; i < at_least_one(grad_shards, "grad_shards"); ++i) {
      shards_.push_back(std::make_unique<ShardMemory>(net_));
    }
  }

  [[nodiscard]] const Net& net() const noexcept { return net_; }
  [[nodiscard]] const Kernels& kernels() const noexcept { return kernels_; }
  [[nodiscard]] int num_threads() const noexcept { return team_.num_threads(); }
  [[nodiscard]] int act_block() const noexcept { return act_block_; }
  [[nodiscard]] int grad_shards() const noexcept { return static_cast<int>(shards_.size()); }
  [[nodiscard]] const float* params() const noexcept { return params_; }

  /// x -> clip((x - mean) * inv_std, -clip, clip) before both towers.
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
    action_low_.assign(low, low + net_.num_actions);
    action_high_.assign(high, high + net_.num_actions);
  }

  void forward(const float* obs, std::ptrdiff_t count, float* logits, float* value) {
    const std::scoped_lock lock(mutex_);
    team_.run(num_blocks(count), [&](int block) {
      const ActPool::Lease memory(act_pool_);
      const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(block) * act_block_;
      kernels_.forward(net_, params_, obs + first * net_.obs_size, block_size(first, count), memory->chunk.space(),
                       logits + first * net_.num_outputs, value + first);
    });
  }

  void act(const float* obs, std::ptrdiff_t count, const Noise& noise, const ActOut& out) {
    const std::scoped_lock lock(mutex_);
    team_.run(num_blocks(count), [&](int block) {
      const ActPool::Lease memory(act_pool_);
      const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(block) * act_block_;
      Noise here = noise;
      here.rows += first;
      here.steps += first;
      const std::ptrdiff_t actions = first * net_.num_actions;
      kernels_.act(net_, params_, obs + first * net_.obs_size, block_size(first, count), here, memory->chunk.space(),
                   {out.choice == nullptr ? nullptr : out.choice + actions,
                    out.action == nullptr ? nullptr : out.action + actions, out.log_prob + first, out.value + first});
    });
  }

  /// The loss's gradient, before any clipping, and its statistics.
  LossSums gradient(const Samples& samples, const LossConfig& config, float* grad, double* stats) {
    const std::scoped_lock lock(mutex_);
    double norm = 0.0;
    const LossSums sums = sharded_gradient(samples, config, norm);
    if (sums.bad < 0) {
      std::memcpy(grad, shards_[0]->grad.data(), static_cast<std::size_t>(net_.num_params) * sizeof(float));
      add_stats(sums, norm, stats);
    }
    return sums;
  }

  /// One gradient step by Adam. Nothing is changed where an action is out of range (LossSums::bad) or the gradient is
  /// not finite (Stat skipped).
  LossSums adam_step(const Samples& samples, const LossConfig& config, double max_grad_norm, const AdamConfig& adam,
                     double* stats) {
    constexpr double beta1 = 0.9;
    constexpr double beta2 = 0.999;
    const std::scoped_lock lock(mutex_);
    double norm = 0.0;
    const LossSums sums = sharded_gradient(samples, config, norm);
    if (sums.bad >= 0 || !add_stats(sums, norm, stats)) {
      return sums;
    }
    const auto t = static_cast<double>(adam.step);
    const AdamStep step{
        static_cast<float>(1.0 - beta1), static_cast<float>(beta2),
        static_cast<float>(1.0 - beta2), static_cast<float>(std::sqrt(1.0 - std::pow(beta2, t))),
        static_cast<float>(adam.eps),    static_cast<float>(adam.learning_rate / (1.0 - std::pow(beta1, t))),
        clip_scale(norm, max_grad_norm)};
    kernels_.adam(step, shards_[0]->grad.data(), net_.num_params, adam.exp_avg, adam.exp_avg_sq, params_);
    return sums;
  }

  /// The same by RMSProp.
  LossSums rmsprop_step(const Samples& samples, const LossConfig& config, double max_grad_norm,
                        const RmsPropConfig& rmsprop, double* stats) {
    const std::scoped_lock lock(mutex_);
    double norm = 0.0;
    const LossSums sums = sharded_gradient(samples, config, norm);
    if (sums.bad >= 0 || !add_stats(sums, norm, stats)) {
      return sums;
    }
    const RmsPropStep step{static_cast<float>(rmsprop.alpha), static_cast<float>(1.0 - rmsprop.alpha),
                           static_cast<float>(rmsprop.eps), static_cast<float>(rmsprop.learning_rate),
                           clip_scale(norm, max_grad_norm)};
    kernels_.rmsprop(step, shards_[0]->grad.data(), net_.num_params, rmsprop.square_avg, params_);
    return sums;
  }

 private:
  friend class Rollout;

  static int at_least_one(int number, const char* name) {
    if (number < 1) {
      throw std::invalid_argument(std::string(name) + " must be at least 1, not " + std::to_string(number));
    }
    return number;
  }

  [[nodiscard]] int num_blocks(std::ptrdiff_t count) const noexcept {
    return static_cast<int>((count + act_block_ - 1) / act_block_);
  }
  [[nodiscard]] std::ptrdiff_t block_size(std::ptrdiff_t first, std::ptrdiff_t count) const noexcept {
    return count - first < act_block_ ? count - first : act_block_;
  }

  /// The numbers 0, 1, 2, ... of at least `count` rows.
  void ensure_row_numbers(int count) {
    for (auto row = static_cast<std::int64_t>(row_numbers_.size()); row < count; ++row) {
      row_numbers_.push_back(row);
    }
  }

  /// torch's clip_grad_norm_: gradients are scaled by max_norm / (norm + 1e-6) where that is below 1.
  static float clip_scale(double norm, double max_norm) noexcept {
    const double scale = max_norm / (norm + 1e-6);
    return scale < 1.0 ? static_cast<float>(scale) : 1.0F;
  }

  /// False where the gradient is not finite.
  static bool add_stats(const LossSums& sums, double norm, double* stats) noexcept {
    const bool finite = std::isfinite(norm);
    stats[policy_loss_stat] += sums.policy_loss;
    stats[value_loss_stat] += sums.value_loss;
    stats[entropy_stat] += sums.entropy;
    stats[approx_kl_stat] += sums.approx_kl;
    stats[clip_fraction_stat] += sums.clip_fraction;
    stats[grad_norm_stat] += norm;
    stats[count_stat] += 1.0;
    stats[skipped_stat] += finite ? 0.0 : 1.0;
    return finite;
  }

  /// Advantages become (A - mean) / (std + 1e-8) over the minibatch, std with one degree of freedom less.
  static Loss make_loss(const Samples& samples, const LossConfig& config) noexcept {
    Loss loss{config.ppo,
              config.clip_vloss,
              static_cast<float>(config.clip_coef),
              static_cast<float>(config.ent_coef),
              static_cast<float>(config.vf_coef),
              0.0F,
              1.0F,
              static_cast<float>(1.0 / static_cast<double>(samples.count))};
    if (config.norm_adv) {
      double sum = 0.0;
      for (std::ptrdiff_t i = 0; i < samples.count; ++i) {
        sum += static_cast<double>(samples.advantage[samples.index[i]]);
      }
      const double mean = sum / static_cast<double>(samples.count);
      double squares = 0.0;
      for (std::ptrdiff_t i = 0; i < samples.count; ++i) {
        const double away = static_cast<double>(samples.advantage[samples.index[i]]) - mean;
        squares += away * away;
      }
      const double std = std::sqrt(squares / static_cast<double>(samples.count - 1));
      loss.advantage_mean = static_cast<float>(mean);
      loss.advantage_scale = static_cast<float>(1.0 / (std + 1e-8));
    }
    return loss;
  }

  /// Parts of the minibatch side by side, their gradients summed in order into the first part's.
  LossSums sharded_gradient(const Samples& samples, const LossConfig& config, double& norm) noexcept {
    const Loss loss = make_loss(samples, config);
    const auto parts = static_cast<std::ptrdiff_t>(shards_.size());
    team_.run(grad_shards(), [&](int part) {
      ShardMemory& memory = *shards_[static_cast<std::size_t>(part)];
      const std::ptrdiff_t first = samples.count * part / parts;
      const std::ptrdiff_t end = samples.count * (part + 1) / parts;
      kernels_.gradient(net_, params_, samples, first, end - first, loss, memory.chunk.space(), memory.sums.data(),
                        memory.grad.data(), memory.totals);
    });
    float* const grad = shards_[0]->grad.data();
    LossSums sums = shards_[0]->totals;
    for (std::size_t i = 1; i < shards_.size(); ++i) {
      const LossSums& more = shards_[i]->totals;
      kernels_.add(shards_[i]->grad.data(), net_.num_params, grad);
      sums.policy_loss += more.policy_loss;
      sums.value_loss += more.value_loss;
      sums.entropy += more.entropy;
      sums.approx_kl += more.approx_kl;
      sums.clip_fraction += more.clip_fraction;
      sums.bad = sums.bad < 0 ? more.bad : sums.bad;
    }
    norm = std::sqrt(kernels_.sum_squares(grad, net_.num_params));
    return sums;
  }

  Net net_;
  float* params_;
  int act_block_;
  const Kernels& kernels_;
  std::vector<std::int64_t> row_numbers_;
  std::vector<float> mean_, inv_std_, action_low_, action_high_;
  std::vector<std::unique_ptr<ShardMemory>> shards_;
  Team team_;
  ActPool act_pool_;
  std::mutex mutex_;
};

}  // namespace shoal
