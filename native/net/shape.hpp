// The shape of a two-tower policy, or of one tower: sizes and offsets only, plain numbers that every instruction set's
// kernels can read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shoal {

constexpr int max_layers = 16;                ///< Linear layers of one tower, the last one included
constexpr int max_actions = 64;               ///< sub-actions of a multi-categorical head
constexpr std::ptrdiff_t chunk_samples = 64;  ///< samples that pass through the towers together
constexpr std::ptrdiff_t pad_size = 16;       ///< every buffer's rows and lanes come in multiples of this

constexpr std::ptrdiff_t padded(std::ptrdiff_t size) noexcept { return (size + pad_size - 1) / pad_size * pad_size; }

/// One Linear layer. Offsets count floats: `weight` [out, in] and `bias` [out] in the parameters, `sum_weight` and
/// `sum_bias` in a shard's accumulators.
struct Dense {
  int in;
  int out;
  std::ptrdiff_t weight;
  std::ptrdiff_t bias;
  std::ptrdiff_t sum_weight;
  std::ptrdiff_t sum_bias;
  bool narrow;  ///< the weight's gradient is summed lane by lane: [out, in, pad_size]; otherwise [out, padded(in)]
};

struct Tower {
  int depth;  ///< Linear layers
  Dense layers[max_layers];
};

/// What the actor's outputs are: logits, means, or the values of actions, which have no critic beside them.
enum class Head : std::uint8_t { categorical, gaussian, q_values };

struct Net {
  Tower actor;   ///< or the only tower
  Tower critic;  ///< depth 0: there is none
  int obs_size;
  Head head;
  bool tanh;        ///< hidden activation: tanh or else relu
  int num_outputs;  ///< logits, means or values: what the actor's last layer gives
  int num_actions;  ///< numbers in one action: sub-actions, or a Gaussian's dimensions
  int nvec[max_actions];
  int max_width;  ///< the widest of all layers' inputs and outputs
  int max_depth;
  std::ptrdiff_t log_std;      ///< offset in the parameters
  std::ptrdiff_t sum_log_std;  ///< offset in the accumulators, behind all others: [dim, pad_size]
  std::ptrdiff_t num_params;
  std::ptrdiff_t num_sums;  ///< floats of one shard's accumulators
  // Observation normalization, x -> clip((x - mean) * inv_std); no mean, no normalization.
  const float* mean;
  const float* inv_std;
  float clip;
};

/// Floats that one chunk's activations take between forward and backward: its observations and every hidden layer's.
constexpr std::ptrdiff_t kept_floats(const Net& net) noexcept {
  const int hidden = net.actor.depth - 1 + (net.critic.depth > 0 ? net.critic.depth - 1 : 0);
  return (padded(net.obs_size) + hidden * padded(net.max_width)) * chunk_samples;
}

/// Buffers for one chunk of samples, feature-major: [feature][chunk_samples].
struct Workspace {
  float* obs;
  float* hidden;  ///< layer l's activations at hidden + l * hidden_stride
  std::ptrdiff_t hidden_stride;
  float* output;      ///< logits, means or the value
  float* delta;       ///< gradients with respect to a layer's output
  float* delta_next;  ///< those of the layer below
  float* transposed;  ///< [chunk_samples][padded(in)]
  float* action;      ///< [num_actions][chunk_samples]
  std::int32_t* choice;
};

}  // namespace shoal
