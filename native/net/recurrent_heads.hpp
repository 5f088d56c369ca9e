// The heads on a tape's samples: outputs, actions, gradients of any output gradient and of fused losses.
//
// The heads are towers of net/tower.hpp, whose lanes hold samples: the memory's outputs are transposed 64 at a time.
#pragma once

#include "net/learning.hpp"
#include "net/recurrent_kernels.hpp"
#include "net/recurrent_sequence.hpp"
#include "net/training.hpp"

namespace shoal::SHOAL_ISA {

SHOAL_INLINE std::ptrdiff_t place_of_sample(const Tape& tape, const Placement& place, int sample) noexcept {
  return sample / tape.rows * place.step_size + place.first_row + sample % tape.rows;
}

/// The memory's outputs of samples [first, first + width), feature-major, as the heads take them.
static inline void gather_memory(const RecurrentNet& net, const Tape& tape, int first, int width,
                                 const Workspace& space) noexcept {
  transpose_any(width, static_cast<int>(padded(net.size)), tape.h_out + first * tape.cell_step, tape.cell_step,
                space.obs, chunk_samples);
}

/// The samples that fill up the last vector: 0, whatever an earlier tape left there.
static inline void clear_tail(const Tape& tape) noexcept {
  const int used = num_samples(tape);
  const std::ptrdiff_t rest = whole_vectors(used) - used;
  std::memset(tape.h_out + used * tape.cell_step, 0, static_cast<std::size_t>(rest * tape.cell_step) * sizeof(float));
}

static void recurrent_forward(const RecurrentNet& net, const RecurrentWeights& weights, const SequenceIn& in,
                              const Tape& tape, const Workspace& space, const Placement& place, float* logits,
                              float* value) noexcept {
  const float* const params = weights.params + net.heads_params;
  const auto outputs = static_cast<std::ptrdiff_t>(net.heads.num_outputs);
  sequence_forward(net, weights.packed, in, tape);
  clear_tail(tape);
  for (int first = 0; first < num_samples(tape); first += static_cast<int>(chunk_samples)) {
    const int many = samples_from(tape, first);
    const int width = whole_vectors(many);
    gather_memory(net, tape, first, width, space);
    if (logits != nullptr) {
      tower_forward(net.heads, net.heads.actor, params, width, space);
      for (int s = 0; s < many; ++s) {
        const std::ptrdiff_t to = place_of_sample(tape, place, first + s) * outputs;
        for (std::ptrdiff_t j = 0; j < outputs; ++j) {
          logits[to + j] = space.output[j * chunk_samples + s];
        }
      }
    }
    if (value != nullptr) {
      tower_forward(net.heads, net.heads.critic, params, width, space);
      for (int s = 0; s < many; ++s) {
        value[place_of_sample(tape, place, first + s)] = space.output[s];
      }
    }
  }
}

/// The memory after a tape's last step, into rows [size].
static inline void keep_memory(const RecurrentNet& net, const Tape& tape, const float* from, float* to) noexcept {
  const std::ptrdiff_t last = static_cast<std::ptrdiff_t>(tape.steps - 1) * tape.rows;
  for (std::ptrdiff_t i = 0; i < tape.rows; ++i) {
    std::memcpy(to + i * net.size, from + (last + i) * tape.cell_step,
                static_cast<std::size_t>(net.size) * sizeof(float));
  }
}

static void recurrent_act(const RecurrentNet& net, const RecurrentWeights& weights, const SequenceIn& in,
                          const Noise& noise, const std::uint8_t* mask, const Tape& tape, const Workspace& space,
                          const ActOut& out, float* h, float* c) noexcept {
  sequence_forward(net, weights.packed, in, tape);
  clear_tail(tape);
  for (int first = 0; first < num_samples(tape); first += static_cast<int>(chunk_samples)) {
    const int many = samples_from(tape, first);
    gather_memory(net, tape, first, whole_vectors(many), space);
    act_chunk(net.heads, weights.params + net.heads_params, noise, first, many, mask, space, out);
  }
  keep_memory(net, tape, tape.h_out, h);
  if (net.cell == Cell::lstm) {
    keep_memory(net, tape, tape.c_out, c);
  }
}

/// The heads' gradients with respect to the memory's outputs, feature-major, into tape.d_out.
static inline void scatter_slopes(const RecurrentNet& net, const float* slopes, int first, int width,
                                  const Tape& tape) noexcept {
  transpose_any(static_cast<int>(padded(net.size)), width, slopes, chunk_samples, tape.d_out + first * tape.cell_step,
                tape.cell_step);
}

/// Rows of output gradients into lanes; lanes beyond `many` get 0.
static inline void gather_placed(const Tape& tape, const Placement& place, const float* rows, int first, int many,
                                 int width, int outputs, float* to) noexcept {
  for (int s = 0; s < width; ++s) {
    const std::ptrdiff_t from = s < many ? place_of_sample(tape, place, first + s) * outputs : -1;
    for (int j = 0; j < outputs; ++j) {
      to[j * chunk_samples + s] = from < 0 ? 0.0F : rows[from + j];
    }
  }
}

static void recurrent_backward(const RecurrentNet& net, const RecurrentWeights& weights, const Tape& tape,
                               const Workspace& space, const Placement& place, const float* logit_slopes,
                               const float* value_slopes, const RecurrentSums& sums) noexcept {
  const float* const params = weights.params + net.heads_params;
  float* const slopes = space.hidden;  // the heads have no hidden layer
  for (int first = 0; first < num_samples(tape); first += static_cast<int>(chunk_samples)) {
    const int many = samples_from(tape, first);
    const int width = whole_vectors(many);
    gather_memory(net, tape, first, width, space);
    gather_placed(tape, place, logit_slopes, first, many, width, net.heads.num_outputs, space.delta);
    add_slopes<false>(net.heads, width,
                      tower_backward(net.heads, net.heads.actor, params, many, width, space, sums.heads, true), slopes);
    gather_placed(tape, place, value_slopes, first, many, width, 1, space.delta);
    add_slopes<true>(net.heads, width,
                     tower_backward(net.heads, net.heads.critic, params, many, width, space, sums.heads, true), slopes);
    scatter_slopes(net, slopes, first, width, tape);
  }
  sequence_backward(net, weights.packed, tape, sums.sequence);
}

/// Samples that do not count get weight 0, the others that of their minibatch.
static inline void weigh_samples(const StepWeights& weights, int many, ChunkSamples& samples) noexcept {
  for (int s = 0; weights.valid != nullptr && s < many; ++s) {
    samples.weight[s] = weights.valid[samples.index[s]] != 0 ? weights.weight : 0.0F;
  }
}

template <FusedLoss L>
static void sequence_gradient(const RecurrentNet& net, const RecurrentWeights& weights, const SequenceIn& in,
                              const Minibatch& batch, const StepWeights& step_weights, const PreparedLoss& prepared,
                              const Tape& tape, const Workspace& space, const RecurrentSums& sums,
                              LossSums& totals) noexcept {
  const L loss = *std::launder(reinterpret_cast<const L*>(prepared.bytes));
  float* const slopes = space.hidden;  // the heads have no hidden layer
  ChunkSamples samples;
  sequence_forward(net, weights.packed, in, tape);
  clear_tail(tape);
  for (int first = 0; first < num_samples(tape); first += static_cast<int>(chunk_samples)) {
    const int many = samples_from(tape, first);
    const int width = whole_vectors(many);
    typename L::Stats chunk{};
    gather_samples(batch, size_of_record<typename L::Columns>, first, many, width, step_weights.weight, samples);
    weigh_samples(step_weights, many, samples);
    gather_memory(net, tape, first, width, space);
    chunk_gradient(net.heads, weights.params + net.heads_params, batch, loss, samples, many, width, space, sums.heads,
                   chunk, slopes);
    scatter_slopes(net, slopes, first, width, tape);
    add_sums<L>(chunk, totals);
  }
  sequence_backward(net, weights.packed, tape, sums.sequence);
}

static void recurrent_finish(const RecurrentNet& net, const RecurrentSums& sums, float* grad) noexcept {
  finish_sequence(net, sums.sequence, grad);
  finish_net(net.heads, sums.heads, grad + net.heads_params);
}

}  // namespace shoal::SHOAL_ISA
