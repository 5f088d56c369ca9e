// The shape of a recurrent policy: sizes and offsets of a body, a GRU or LSTM and two linear heads, and the buffers of
// a few rows' sequences.
#pragma once

#include "net/shape.hpp"

namespace shoal {

constexpr int max_gates = 4;

/// A Linear layer on samples that lie one after another, [sample][feature]. Its outputs are `groups` parts (a cell's
/// gates) of `size`, each padded to whole vectors: `columns` in all. Offsets count floats.
struct RowLayer {
  int in;
  int size;
  int groups;
  int order[max_gates];     ///< which of torch's groups stands at each place
  int columns;              ///< groups * padded(size)
  std::ptrdiff_t weight;    ///< [groups * size, in] in the parameters
  std::ptrdiff_t bias;      ///< [groups * size] in the parameters
  std::ptrdiff_t forward;   ///< the transposed weight [in, columns] in the packed weights, in panels
  std::ptrdiff_t backward;  ///< the weight [columns, padded(in)] in the packed weights, in panels
  std::ptrdiff_t sum;       ///< the transposed weight's gradient [in, columns] in a shard's accumulators, in panels
};

enum class Cell : std::uint8_t { gru, lstm };

/// A recurrent policy. The cell's four blocks of padded(size) columns are n, r, z, n' of a GRU (n' = W_hn h + b_hn) and
/// i, f, g, o of an LSTM: the input's part fills the first ones, the memory's the last ones.
struct RecurrentNet {
  Net heads;                    ///< two linear layers on the memory's output
  std::ptrdiff_t heads_params;  ///< where their parameters begin
  int obs_size;
  bool tanh;  ///< the body's activation: tanh or else relu
  int depth;  ///< the body's layers
  RowLayer body[max_layers];
  std::ptrdiff_t body_bias[max_layers];      ///< [columns] in the packed weights
  std::ptrdiff_t body_sum_bias[max_layers];  ///< [columns] in the accumulators
  Cell cell;
  int size;          ///< of the memory
  int memory_block;  ///< the first block that the memory's part fills
  RowLayer input;
  RowLayer memory;
  std::ptrdiff_t cell_bias;      ///< [4 * padded(size)] in the packed weights, both biases added
  std::ptrdiff_t cell_sum_bias;  ///< [4 * padded(size)] in the accumulators
  std::ptrdiff_t num_params;
  std::ptrdiff_t num_packed;
  std::ptrdiff_t num_sums;  ///< without the heads' own
  // Observation normalization, x -> clip((x - mean) * inv_std); no mean, no normalization.
  const float* mean;
  const float* inv_std;
  float clip;
};

/// Floats from one sample to the next: an odd number of cache lines, so that a column's samples spread over all sets of
/// a cache.
constexpr std::ptrdiff_t row_step(std::ptrdiff_t size) noexcept {
  const std::ptrdiff_t lines = padded(size) / pad_size;
  return (lines % 2 == 0 ? lines + 1 : lines) * pad_size;
}

/// What `rows` sequences of `steps` steps leave behind for their gradient; sample s = step * rows + row.
struct Tape {
  int steps;
  int rows;
  std::uint8_t* start;
  float* obs;     ///< [sample][obs_step]
  float* hidden;  ///< the body's layer l at hidden + l * hidden_stride, [sample][hidden_step]
  float* gates;   ///< [sample][gate_step], then their gradients
  float* h_in;    ///< [sample][cell_step]: the memory before the step, zero at a start
  float* h_out;
  float* c_in;  ///< of an LSTM
  float* c_out;
  float* d_out;       ///< the gradient with respect to h_out
  float* delta;       ///< [chunk_samples][hidden_step]: those with respect to a layer's output
  float* delta_next;  ///< those of the layer below
  float* carry_h;     ///< [row][cell_step]: the gradient with respect to the memory after a step
  float* carry_c;
  std::ptrdiff_t obs_step;
  std::ptrdiff_t hidden_step;
  std::ptrdiff_t hidden_stride;
  std::ptrdiff_t gate_step;
  std::ptrdiff_t cell_step;
};

/// The sequences that a tape takes in: sample s is number index[s] of `obs` and `start` (s itself without an index),
/// and row i's memory before its first step is number rows[i] of `h` and `c`.
struct SequenceIn {
  const float* obs;
  const std::uint8_t* start;  ///< null: no starts
  const std::int32_t* index;
  const float* h;
  const float* c;
  const std::int32_t* rows;
};

}  // namespace shoal
