// What the kernels offer, as a table of functions: one table for each instruction set that net/kernels.cpp is built
// for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "net/minibatch.hpp"
#include "net/recurrent_kernels.hpp"
#include "net/shape.hpp"

namespace shoal {

/// What a row's action noise is a function of.
struct Noise {
  std::uint64_t seed;
  std::uint32_t stream;
  const std::int64_t* rows;
  const std::int64_t* steps;
  bool greedy;                     ///< no noise: the most probable action, or the mean
  const float* epsilon = nullptr;  ///< how often each row of a Q-network explores; null: never
};

struct ActOut {
  std::int64_t* choice;  ///< [count, num_actions] of a head that chooses
  float* action;         ///< [count, num_actions] of a Gaussian head
  float* log_prob;       ///< [count]
  float* value;          ///< [count]
};

constexpr int max_loss_members = 16;  ///< columns, settings or statistics of one loss

/// A loss made from its settings and prepared for a minibatch, whatever its type.
struct PreparedLoss {
  alignas(16) unsigned char bytes[256];
};

/// A minibatch's means, in the order of the loss's Stats.
struct LossSums {
  double stats[max_loss_members];
};

/// One loss of native/losses, compiled for one instruction set.
struct LossKernels {
  const char* name;
  const char* const* columns;
  int num_columns;
  const char* const* settings;
  int num_settings;
  const char* const* stats;
  int num_stats;
  bool of_values;                                        ///< of a Q-network, not of a policy and its value function
  int (*least_samples)(const float* settings) noexcept;  ///< of a minibatch
  void (*prepare)(const float* settings, const Minibatch&, PreparedLoss&) noexcept;
  /// Gradient of the loss of samples index[first, first + count) into grad [num_params]; `sums` is num_sums of scratch.
  void (*gradient)(const Net&, const float* params, const Minibatch&, std::ptrdiff_t first, std::ptrdiff_t count,
                   const PreparedLoss&, const Workspace&, float* sums, float* grad, LossSums&) noexcept;
};

constexpr std::ptrdiff_t squares_run = 1024;  ///< floats whose squares are summed in float32, before double goes on

struct AdamStep {
  float beta1_rest;  ///< 1 - beta1
  float beta2;
  float beta2_rest;
  float bias2_sqrt;  ///< sqrt(1 - beta2^step)
  float eps;
  float step_size;  ///< learning rate / (1 - beta1^step)
  float grad_scale;
};

struct RmsPropStep {
  float alpha;
  float alpha_rest;
  float eps;
  float learning_rate;
  float grad_scale;
};

struct ImageShape {
  std::ptrdiff_t places;    ///< height * width
  std::ptrdiff_t channels;  ///< at least 1
  bool channels_last;       ///< as they are given
};

/// Of each place of an image, channels last [places, channels].
struct PixelMoments {
  const float* mean;
  const float* inv_std;
  float clip;
};

/// Where images go, one of the two: as bfloat16's bits or as float32.
struct PixelsOut {
  std::uint16_t* half;
  float* single;
};

/// Sizes of a decode step's attention.
struct DecodeShape {
  std::ptrdiff_t rows;
  std::ptrdiff_t heads;
  std::ptrdiff_t kv_heads;
  std::ptrdiff_t capacity;  ///< positions of the cache
  std::ptrdiff_t size;      ///< of a head
  float eps;                ///< of the norm of queries and keys
};

/// Scores of one head: one for each position, and room for a whole vector.
constexpr std::ptrdiff_t score_room(const DecodeShape& shape) noexcept { return shape.capacity + 16; }

/// What a decode step attends with.
struct DecodeIn {
  const float* qkv;              ///< [rows, heads + 2 kv_heads, size]
  const float* norm;             ///< [heads + kv_heads, size]; null: queries and keys are not normalized
  const float* turns;            ///< [capacity, 2, size]: cosines, and sines of alternating sign
  const std::int64_t* position;  ///< [rows]
};

constexpr int panel_width = 32;  ///< outputs whose weights lie side by side

struct PanelShape {
  std::ptrdiff_t rows;
  std::ptrdiff_t in;
  std::ptrdiff_t out;  ///< a multiple of panel_width
};

/// What becomes of a product's numbers: nothing, x / (1 + e^-x), times another array's, plus another array's.
enum class PanelFinish : std::uint8_t { keep, swish, times, plus };

struct Kernels {
  const char* name;
  /// Logits (or means) [count, num_outputs] and values [count] of observations [count, obs_size]; each may be null.
  void (*forward)(const Net&, const float* params, const float* obs, std::ptrdiff_t count, const Workspace&,
                  float* logits, float* value) noexcept;
  /// mask: [count, num_outputs], 0 where an option is not to be chosen; null: all are.
  void (*act)(const Net&, const float* params, const float* obs, std::ptrdiff_t count, const Noise&,
              const std::uint8_t* mask, const Workspace&, const ActOut&) noexcept;
  /// Forward of samples index[first, first + count) (of rows first to first + count - 1 without an index), activations
  /// into `kept`: kept_floats(net) a chunk. Outputs stand at the sample's place in the minibatch.
  void (*forward_kept)(const Net&, const float* params, const float* obs, const std::int32_t* index,
                       std::ptrdiff_t first, std::ptrdiff_t count, const Workspace&, float* kept, float* logits,
                       float* value) noexcept;
  /// The gradient of those samples' parameters into grad, unless `sums` is null, from the gradients of their logits and
  /// values; and of their observations into obs_slopes [samples, obs_size], which may be null.
  void (*backward_kept)(const Net&, const float* params, float* kept, std::ptrdiff_t first, std::ptrdiff_t count,
                        const float* logit_slopes, const float* value_slopes, const Workspace&, float* sums,
                        float* grad, float* obs_slopes) noexcept;
  const LossKernels* losses;  ///< all of native/losses
  int num_losses;
  RecurrentKernels recurrent;
  const SequenceGradient* sequence_gradients;  ///< one for each of `losses`
  void (*add)(const float* from, std::ptrdiff_t size, float* to) noexcept;
  /// `total` and the squares of all values, squares_run of them at a time.
  double (*sum_squares)(const float* values, std::ptrdiff_t size, double total) noexcept;
  void (*adam)(const AdamStep&, const float* grad, std::ptrdiff_t size, float* exp_avg, float* exp_avg_sq,
               float* params) noexcept;
  void (*rmsprop)(const RmsPropStep&, const float* grad, std::ptrdiff_t size, float* square_avg,
                  float* params) noexcept;
  /// Images of bytes as floating-point numbers, channels last; normalized where there are moments.
  void (*pixels_last)(const std::uint8_t* pixels, std::ptrdiff_t images, const ImageShape&, const PixelMoments* moments,
                      const PixelsOut& out) noexcept;
  /// Attention of one token of each row to the keys and values [slots, kv_heads, capacity, size] of its slot, which it
  /// joins; scratch: heads / kv_heads * (size + score_room); out: [rows, heads, size].
  void (*decode_attention)(const DecodeShape&, const DecodeIn&, float* key_cache, float* value_cache, float* scratch,
                           float* out) noexcept;
  /// Weights [out, in] as panels [out / panel_width, in, panel_width].
  void (*pack_panels)(const float* weights, std::ptrdiff_t out, std::ptrdiff_t in, float* panels) noexcept;
  /// Products [rows, out] of x [rows, in] with them, plus `bias` [out], which may be null; `other` is [rows, out].
  void (*panel_product)(const PanelShape&, const float* x, const float* panels, const float* bias, const float* other,
                        PanelFinish, float* out) noexcept;
  /// Multiply-adds on registers and how many operations they are: the machine's limit.
  float (*multiply_adds)(std::ptrdiff_t rounds) noexcept;
  double (*multiply_add_flops)(std::ptrdiff_t rounds) noexcept;
};

// A build has the first, or the others.
namespace baseline {
const Kernels& kernels() noexcept;
}
namespace x86_64_v2 {
const Kernels& kernels() noexcept;
}
namespace x86_64_v3 {
const Kernels& kernels() noexcept;
}
namespace x86_64_v4 {
const Kernels& kernels() noexcept;
}

}  // namespace shoal
