// An actor beside critics Q(s, a), towers all of them: values of what the actor does, and the gradients of both.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "net/plan.hpp"
#include "net/squashed.hpp"

namespace shoal {

/// Rows of observations [count, size], as the actor's and the critics' encoders give them.
struct Observed {
  const float* actor;
  const float* critics;
  std::ptrdiff_t count;
};

/// Calls the towers in turn, each with all threads of the team that they share. One call at a time. Without an actor,
/// or without critics, what needs them must not be called.
class ActorCritic {
 public:
  ActorCritic(MlpPlan* actor, std::vector<MlpPlan*> critics, std::ptrdiff_t action_size)
      : actor_(actor), critics_(std::move(critics)), action_size_(action_size) {}

  [[nodiscard]] std::ptrdiff_t action_size() const noexcept { return action_size_; }
  [[nodiscard]] std::ptrdiff_t actor_obs_size() const noexcept { return actor_->net().obs_size; }
  [[nodiscard]] std::ptrdiff_t critic_obs_size() const noexcept { return critics_[0]->net().obs_size - action_size_; }
  [[nodiscard]] std::ptrdiff_t actor_outputs() const noexcept { return actor_->net().num_outputs; }
  [[nodiscard]] std::ptrdiff_t actor_params() const noexcept { return actor_->net().num_params; }
  [[nodiscard]] std::ptrdiff_t critic_params() const noexcept {
    std::ptrdiff_t total = 0;
    for (const MlpPlan* critic : critics_) {
      total += critic->net().num_params;
    }
    return total;
  }

  /// value = min_k Q_k(s, a) - temperature log pi(a | s), a of the noise [count, size] (Haarnoja et al. 2018, eq. 3).
  void soft_values(const Observed& obs, const float* noise, float temperature, float* value) {
    outputs_.resize(obs.count * actor_outputs());
    actor_->forward(obs.actor, obs.count, outputs_.data(), nullptr);
    sample(obs.count, noise);
    least_values(obs);
    for (std::ptrdiff_t i = 0; i < obs.count; ++i) {
      value[i] = least_[i] - temperature * log_prob_[i];
    }
  }

  /// value = min_k Q_k(s, clip(tanh(actor) + clip(deviation noise, -clip, clip), -1, 1)) (Fujimoto et al. 2018, eq.
  /// 14).
  void smoothed_values(const Observed& obs, const float* noise, float deviation, float clip, float* value) {
    const std::ptrdiff_t numbers = obs.count * action_size_;
    outputs_.resize(numbers);
    action_.resize(numbers);
    actor_->forward(obs.actor, obs.count, outputs_.data(), nullptr);
    for (std::ptrdiff_t i = 0; i < numbers; ++i) {
      const float added = std::clamp(deviation * noise[i], -clip, clip);
      action_[i] = std::clamp(std::tanh(outputs_[i]) + added, -1.0F, 1.0F);
    }
    least_values(obs);
    std::copy(least_.begin(), least_.end(), value);
  }

  /// The gradient of the critics' losses, the mean of w/2 sum_k (Q_k - target)^2, into `grad`, one critic after the
  /// other; the mean error of each sample into `error`. stats: the loss, the mean value.
  void critics_gradient(const float* obs, const float* action, bool squash, std::ptrdiff_t count, const float* target,
                        const float* weight, float* grad, float* error, double* stats) {
    action_.resize(count * action_size_);
    for (std::size_t i = 0; i < action_.size(); ++i) {
      action_[i] = squash ? std::tanh(action[i]) : action[i];
    }
    join(obs, count);
    std::fill(error, error + count, 0.0F);
    values_.resize(count);
    slopes_.resize(count);
    const auto scale = static_cast<float>(1.0 / static_cast<double>(count));
    const float share = 1.0F / static_cast<float>(critics_.size());
    double loss = 0.0;
    double total = 0.0;
    for (MlpPlan* critic : critics_) {
      critic->forward_train(input_.data(), nullptr, count, values_.data(), nullptr);
      for (std::ptrdiff_t i = 0; i < count; ++i) {
        const float off = values_[i] - target[i];
        error[i] += share * off;
        slopes_[i] = weight[i] * off * scale;
        loss += 0.5 * weight[i] * off * off;
        total += values_[i];
      }
      critic->backward(count, slopes_.data(), nullptr, grad, nullptr);
      grad += critic->net().num_params;
    }
    stats[0] = loss / static_cast<double>(count);
    stats[1] = total / static_cast<double>(count) * share;
  }

  /// The actor's gradient of the mean of temperature log pi(a | s) - min_k Q_k(s, a) (eq. 9). stats: the loss, the
  /// entropy, -log pi.
  void soft_gradient(const Observed& obs, const float* noise, float temperature, float* grad, double* stats) {
    outputs_.resize(obs.count * actor_outputs());
    actor_->forward_train(obs.actor, nullptr, obs.count, outputs_.data(), nullptr);
    sample(obs.count, noise);
    const double value = through_critics(obs, critics_.size());
    const auto scale = static_cast<float>(1.0 / static_cast<double>(obs.count));
    output_slopes_.resize(outputs_.size());
    double total = 0.0;
    for (std::ptrdiff_t i = 0; i < obs.count; ++i) {
      const std::ptrdiff_t at = i * action_size_;
      squashed_slopes(outputs_.data() + 2 * at, noise + at, action_.data() + at, action_slopes_.data() + at,
                      temperature * scale, action_size_, output_slopes_.data() + 2 * at);
      total += log_prob_[i];
    }
    actor_->backward(obs.count, output_slopes_.data(), nullptr, grad, nullptr);
    stats[1] = -total / static_cast<double>(obs.count);
    stats[0] = -temperature * stats[1] - value;
  }

  /// The actor's gradient of the mean of -Q_1(s, tanh(actor)). stats: the loss.
  void deterministic_gradient(const Observed& obs, float* grad, double* stats) {
    const std::ptrdiff_t numbers = obs.count * action_size_;
    outputs_.resize(numbers);
    action_.resize(numbers);
    actor_->forward_train(obs.actor, nullptr, obs.count, outputs_.data(), nullptr);
    for (std::ptrdiff_t i = 0; i < numbers; ++i) {
      action_[i] = std::tanh(outputs_[i]);
    }
    stats[0] = -through_critics(obs, 1);
    output_slopes_.resize(numbers);
    for (std::ptrdiff_t i = 0; i < numbers; ++i) {
      output_slopes_[i] = action_slopes_[i] * (1.0F - action_[i] * action_[i]);
    }
    actor_->backward(obs.count, output_slopes_.data(), nullptr, grad, nullptr);
  }

 private:
  /// Squashed actions of the actor's outputs, and their log-densities.
  void sample(std::ptrdiff_t count, const float* noise) {
    action_.resize(count * action_size_);
    log_prob_.resize(count);
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      const std::ptrdiff_t at = i * action_size_;
      log_prob_[i] = squashed_sample(outputs_.data() + 2 * at, noise + at, action_size_, action_.data() + at);
    }
  }

  /// Observations and actions side by side, as critics see them.
  void join(const float* obs, std::ptrdiff_t count) {
    const std::ptrdiff_t size = critic_obs_size();
    input_.resize(count * (size + action_size_));
    float* to = input_.data();
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      to = std::copy(obs + i * size, obs + (i + 1) * size, to);
      to = std::copy(action_.data() + i * action_size_, action_.data() + (i + 1) * action_size_, to);
    }
  }

  /// min_k Q_k of the actions, without gradients.
  void least_values(const Observed& obs) {
    join(obs.critics, obs.count);
    least_.resize(obs.count);
    values_.resize(obs.count);
    for (MlpPlan* critic : critics_) {
      critic->forward(input_.data(), obs.count, values_.data(), nullptr);
      for (std::ptrdiff_t i = 0; i < obs.count; ++i) {
        least_[i] = critic == critics_[0] ? values_[i] : std::min(least_[i], values_[i]);
      }
    }
  }

  /// The gradient of -min_k Q_k's mean over the first `many` critics with respect to the actions; returns that mean.
  /// Critics whose values are equal share a sample's gradient.
  double through_critics(const Observed& obs, std::size_t many) {
    const std::ptrdiff_t size = critic_obs_size();
    join(obs.critics, obs.count);
    of_each_.resize(many * obs.count);
    least_.resize(obs.count);
    for (std::size_t k = 0; k < many; ++k) {
      float* const values = of_each_.data() + k * obs.count;
      critics_[k]->forward_train(input_.data(), nullptr, obs.count, values, nullptr);
      for (std::ptrdiff_t i = 0; i < obs.count; ++i) {
        least_[i] = k == 0 ? values[i] : std::min(least_[i], values[i]);
      }
    }
    action_slopes_.assign(obs.count * action_size_, 0.0F);
    input_slopes_.resize(input_.size());
    slopes_.resize(obs.count);
    const auto scale = static_cast<float>(1.0 / static_cast<double>(obs.count));
    for (std::size_t k = 0; k < many; ++k) {
      for (std::ptrdiff_t i = 0; i < obs.count; ++i) {
        int equal = 0;
        for (std::size_t other = 0; other < many; ++other) {
          equal += of_each_[other * obs.count + i] == least_[i] ? 1 : 0;
        }
        const bool is_least = of_each_[k * obs.count + i] == least_[i];
        slopes_[i] = is_least ? -scale / static_cast<float>(equal) : 0.0F;
      }
      critics_[k]->backward(obs.count, slopes_.data(), nullptr, nullptr, input_slopes_.data());
      for (std::ptrdiff_t i = 0; i < obs.count; ++i) {
        const float* const from = input_slopes_.data() + i * (size + action_size_) + size;
        for (std::ptrdiff_t d = 0; d < action_size_; ++d) {
          action_slopes_[i * action_size_ + d] += from[d];
        }
      }
    }
    double total = 0.0;
    for (const float value : least_) {
      total += value;
    }
    return total / static_cast<double>(obs.count);
  }

  MlpPlan* actor_;
  std::vector<MlpPlan*> critics_;
  std::ptrdiff_t action_size_;
  std::vector<float> outputs_, action_, log_prob_, input_, values_, least_, of_each_;
  std::vector<float> slopes_, action_slopes_, input_slopes_, output_slopes_;
};

}  // namespace shoal
