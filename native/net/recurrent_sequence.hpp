// Whole sequences of a few rows through the body and the memory, forward and backward through time.
//
// Only the memory's product goes step by step. The body, the input's part of the gates and all gradients of weights
// take the samples of all steps, 64 at a time.
#pragma once

#include "net/recurrent_cells.hpp"
#include "net/recurrent_rows.hpp"

namespace shoal::SHOAL_ISA {

SHOAL_INLINE int num_samples(const Tape& tape) noexcept { return tape.steps * tape.rows; }

SHOAL_INLINE int samples_from(const Tape& tape, int first) noexcept {
  const int left = num_samples(tape) - first;
  return left < chunk_samples ? left : static_cast<int>(chunk_samples);
}

/// Where the bias of a layer's group begins in the parameters; of a group that it lacks, anywhere in them.
SHOAL_INLINE std::ptrdiff_t group_bias(const RowLayer& layer, int group) noexcept {
  const bool there = group >= 0 && group < layer.groups;
  return layer.bias + (there ? static_cast<std::ptrdiff_t>(layer.order[group]) * layer.size : 0);
}

/// All weights and biases as the products take them; without `with_backward` those of the forward pass only.
static void pack(const RecurrentNet& net, const float* params, bool with_backward, float* packed) noexcept {
  for (int l = 0; l < net.depth; ++l) {
    pack_rows(net.body[l], params, with_backward && l > 0, packed);
    std::memcpy(packed + net.body_bias[l], params + net.body[l].bias,
                static_cast<std::size_t>(net.body[l].size) * sizeof(float));
  }
  pack_rows(net.input, params, with_backward && net.depth > 0, packed);
  pack_rows(net.memory, params, with_backward, packed);
  for (int block = 0; block < max_gates; ++block) {
    float* const bias = packed + net.cell_bias + block * padded(net.size);
    const int from_memory = block - net.memory_block;
    const float* const input = params + group_bias(net.input, block);
    const float* const memory = params + group_bias(net.memory, from_memory);
    for (int j = 0; j < net.size; ++j) {
      bias[j] = block < net.input.groups ? input[j] : 0.0F;
      bias[j] += from_memory >= 0 ? memory[j] : 0.0F;
    }
  }
}

/// Observations, starts and the memory before the first step.
static inline void gather_sequence(const RecurrentNet& net, const SequenceIn& in, const Tape& tape) noexcept {
  for (int s = 0; s < num_samples(tape); ++s) {
    const std::ptrdiff_t from = in.index == nullptr ? s : in.index[s];
    const float* const obs = in.obs + from * net.obs_size;
    float* const to = tape.obs + s * tape.obs_step;
    std::memcpy(to, obs, static_cast<std::size_t>(net.obs_size) * sizeof(float));
    tape.start[s] = in.start == nullptr ? 0 : in.start[from];
    for (int f = 0; net.mean != nullptr && f < net.obs_size; ++f) {
      const float x = (to[f] - net.mean[f]) * net.inv_std[f];
      to[f] = x < -net.clip ? -net.clip : (x > net.clip ? net.clip : x);
    }
  }
  const std::size_t bytes = static_cast<std::size_t>(net.size) * sizeof(float);
  for (int i = 0; i < tape.rows; ++i) {
    const std::ptrdiff_t from = static_cast<std::ptrdiff_t>(in.rows == nullptr ? i : in.rows[i]) * net.size;
    const std::ptrdiff_t to = i * tape.cell_step;
    if (tape.start[i] != 0) {
      std::memset(tape.h_in + to, 0, bytes);
    } else {
      std::memcpy(tape.h_in + to, in.h + from, bytes);
    }
    if (net.cell == Cell::lstm && tape.start[i] != 0) {
      std::memset(tape.c_in + to, 0, bytes);
    } else if (net.cell == Cell::lstm) {
      std::memcpy(tape.c_in + to, in.c + from, bytes);
    }
  }
}

/// The body's activation, in place.
static inline void activate_rows(bool tanh, int samples, int columns, float* x, std::ptrdiff_t step) noexcept {
  for (int s = 0; s < samples; ++s) {
    for (int c = 0; c < columns; c += vec_lanes) {
      float* const lanes = x + s * step + c;
      const Vec z = load(lanes);
      store(lanes, tanh ? hyperbolic_tangent(z) : (z < 0.0F ? Vec{} : z));
    }
  }
}

/// dx becomes dx times the activation's slope, from the activation's own output y.
static inline void through_rows(bool tanh, int samples, int columns, const float* y, float* dx,
                                std::ptrdiff_t step) noexcept {
  for (int s = 0; s < samples; ++s) {
    for (int c = 0; c < columns; c += vec_lanes) {
      const Vec a = load(y + s * step + c);
      const Vec d = load(dx + s * step + c);
      store(dx + s * step + c, tanh ? d - d * (a * a) : (a > 0.0F ? d : Vec{}));
    }
  }
}

/// The body and the input's part of the gates, for the samples from `first` on.
static inline void input_forward(const RecurrentNet& net, const float* packed, const Tape& tape, int first,
                                 int samples) noexcept {
  const float* x = tape.obs + first * tape.obs_step;
  std::ptrdiff_t x_step = tape.obs_step;
  for (int l = 0; l < net.depth; ++l) {
    float* const y = tape.hidden + l * tape.hidden_stride + first * tape.hidden_step;
    rows_forward<Start::columns>(net.body[l], packed, packed + net.body_bias[l], samples, x, x_step, y,
                                 tape.hidden_step);
    activate_rows(net.tanh, samples, net.body[l].columns, y, tape.hidden_step);
    x = y;
    x_step = tape.hidden_step;
  }
  float* const gates = tape.gates + first * tape.gate_step;
  rows_forward<Start::columns>(net.input, packed, packed + net.cell_bias, samples, x, x_step, gates, tape.gate_step);
  const std::ptrdiff_t filled = net.input.columns;
  const std::ptrdiff_t rest = max_gates * padded(net.size) - filled;
  for (int s = 0; rest > 0 && s < samples; ++s) {
    std::memcpy(gates + s * tape.gate_step + filled, packed + net.cell_bias + filled,
                static_cast<std::size_t>(rest) * sizeof(float));
  }
}

/// What a step's memory is to the next step: zero at a start.
static inline void pass_memory(const Tape& tape, std::ptrdiff_t block, std::ptrdiff_t sample, const float* from,
                               float* to) noexcept {
  const std::ptrdiff_t next = (sample + tape.rows) * tape.cell_step;
  const bool keep = tape.start[sample + tape.rows] == 0;
  for (std::ptrdiff_t j = 0; j < block; j += vec_lanes) {
    store(to + next + j, keep ? load(from + sample * tape.cell_step + j) : Vec{});
  }
}

/// One step of all rows: the memory's part of the gates, the cell, and the next step's memory.
static inline void memory_forward(const RecurrentNet& net, const float* packed, const Tape& tape, int step) noexcept {
  const std::ptrdiff_t block = padded(net.size);
  const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(step) * tape.rows;
  rows_forward<Start::sum>(net.memory, packed, nullptr, tape.rows, tape.h_in + first * tape.cell_step, tape.cell_step,
                           tape.gates + first * tape.gate_step + net.memory_block * block, tape.gate_step);
  const bool last = step + 1 == tape.steps;
  for (std::ptrdiff_t s = first; s < first + tape.rows; ++s) {
    const CellRow row = cell_row(tape, s);
    if (net.cell == Cell::gru) {
      gru_forward(block, row);
    } else {
      lstm_forward(block, row);
    }
    if (!last) {
      pass_memory(tape, block, s, tape.h_out, tape.h_in);
    }
    if (!last && net.cell == Cell::lstm) {
      pass_memory(tape, block, s, tape.c_out, tape.c_in);
    }
  }
}

/// From the sequences to the memory's outputs.
static void sequence_forward(const RecurrentNet& net, const float* packed, const SequenceIn& in,
                             const Tape& tape) noexcept {
  gather_sequence(net, in, tape);
  for (int first = 0; first < num_samples(tape); first += static_cast<int>(chunk_samples)) {
    input_forward(net, packed, tape, first, samples_from(tape, first));
  }
  for (int step = 0; step < tape.steps; ++step) {
    memory_forward(net, packed, tape, step);
  }
}

/// One step back: from d_out and what the next step carries to the gates' gradients and what this step carries.
static inline void memory_backward(const RecurrentNet& net, const float* packed, const Tape& tape, int step) noexcept {
  const std::ptrdiff_t block = padded(net.size);
  const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(step) * tape.rows;
  const bool gru = net.cell == Cell::gru;
  for (int i = 0; i < tape.rows; ++i) {
    const CellRow row = cell_row(tape, first + i);
    const float* const d_out = tape.d_out + (first + i) * tape.cell_step;
    float* const carry_h = tape.carry_h + i * tape.cell_step;
    if (gru) {
      gru_backward(block, row, d_out, carry_h);
    } else {
      lstm_backward(block, row, d_out, carry_h, tape.carry_c + i * tape.cell_step);
    }
  }
  if (step == 0) {
    return;  // nothing flows into the memory that was given
  }
  const float* const gates = tape.gates + first * tape.gate_step + net.memory_block * block;
  if (gru) {
    rows_backward<Start::sum>(net.memory, packed, tape.rows, gates, tape.gate_step, tape.carry_h, tape.cell_step);
  } else {
    rows_backward<Start::zero>(net.memory, packed, tape.rows, gates, tape.gate_step, tape.carry_h, tape.cell_step);
  }
  for (int i = 0; i < tape.rows; ++i) {
    for (std::ptrdiff_t j = 0; tape.start[first + i] != 0 && j < block; j += vec_lanes) {
      store(tape.carry_h + i * tape.cell_step + j, Vec{});
      if (!gru) {
        store(tape.carry_c + i * tape.cell_step + j, Vec{});
      }
    }
  }
}

/// The weights' gradients and the body's, from the gates' gradients of the samples from `first` on.
static inline void input_backward(const RecurrentNet& net, const float* packed, const Tape& tape, int first,
                                  int samples, float* sums) noexcept {
  const std::ptrdiff_t block = padded(net.size);
  const float* const gates = tape.gates + first * tape.gate_step;
  rows_gradient(net.memory, samples, tape.h_in + first * tape.cell_step, tape.cell_step,
                gates + net.memory_block * block, tape.gate_step, sums);
  add_columns(samples, static_cast<int>(max_gates * block), gates, tape.gate_step, sums + net.cell_sum_bias);
  const float* dy = gates;
  std::ptrdiff_t dy_step = tape.gate_step;
  float* dx = tape.delta;
  float* dx_next = tape.delta_next;
  for (int l = net.depth; l >= 0; --l) {
    const RowLayer& layer = l == net.depth ? net.input : net.body[l];
    const float* const x = l > 0 ? tape.hidden + (l - 1) * tape.hidden_stride + first * tape.hidden_step
                                 : tape.obs + first * tape.obs_step;
    rows_gradient(layer, samples, x, l > 0 ? tape.hidden_step : tape.obs_step, dy, dy_step, sums);
    if (l < net.depth) {
      add_columns(samples, layer.columns, dy, dy_step, sums + net.body_sum_bias[l]);
    }
    if (l > 0) {
      rows_backward<Start::zero>(layer, packed, samples, dy, dy_step, dx, tape.hidden_step);
      through_rows(net.tanh, samples, static_cast<int>(padded(layer.in)), x, dx, tape.hidden_step);
      dy = dx;
      dy_step = tape.hidden_step;
      float* const used = dx;
      dx = dx_next;
      dx_next = used;
    }
  }
}

/// From the gradients with respect to the memory's outputs, in tape.d_out, to the weights', added to `sums`.
static void sequence_backward(const RecurrentNet& net, const float* packed, const Tape& tape, float* sums) noexcept {
  const std::size_t carried = static_cast<std::size_t>(tape.rows * tape.cell_step) * sizeof(float);
  std::memset(tape.carry_h, 0, carried);
  if (net.cell == Cell::lstm) {
    std::memset(tape.carry_c, 0, carried);
  }
  for (int step = tape.steps - 1; step >= 0; --step) {
    memory_backward(net, packed, tape, step);
  }
  for (int first = 0; first < num_samples(tape); first += static_cast<int>(chunk_samples)) {
    input_backward(net, packed, tape, first, samples_from(tape, first), sums);
  }
}

/// A shard's accumulators, in the order of the parameters; the heads' own aside.
static void finish_sequence(const RecurrentNet& net, const float* sums, float* grad) noexcept {
  for (int l = 0; l < net.depth; ++l) {
    finish_rows(net.body[l], sums, grad);
    std::memcpy(grad + net.body[l].bias, sums + net.body_sum_bias[l],
                static_cast<std::size_t>(net.body[l].size) * sizeof(float));
  }
  finish_rows(net.input, sums, grad);
  finish_rows(net.memory, sums, grad);
  const std::size_t bytes = static_cast<std::size_t>(net.size) * sizeof(float);
  for (int block = 0; block < max_gates; ++block) {
    const float* const sum = sums + net.cell_sum_bias + block * padded(net.size);
    if (block < net.input.groups) {
      std::memcpy(grad + group_bias(net.input, block), sum, bytes);
    }
    if (block >= net.memory_block) {
      std::memcpy(grad + group_bias(net.memory, block - net.memory_block), sum, bytes);
    }
  }
}

}  // namespace shoal::SHOAL_ISA
