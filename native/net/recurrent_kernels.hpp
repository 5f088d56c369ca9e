// What the kernels offer for recurrent policies, as a table of functions: one table for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "net/minibatch.hpp"
#include "net/recurrent_shape.hpp"

namespace shoal {

struct Noise;
struct ActOut;
struct PreparedLoss;
struct LossSums;

/// A policy's weights, as they are and as the products take them.
struct RecurrentWeights {
  const float* params;
  const float* packed;
};

/// Where a tape's sample (step, row) stands among all outputs: at step * step_size + first_row + row.
struct Placement {
  std::ptrdiff_t first_row;
  std::ptrdiff_t step_size;
};

/// A shard's accumulators: the body's and the cell's, and the heads'.
struct RecurrentSums {
  float* sequence;
  float* heads;
};

/// The steps of a minibatch that count: those where `valid` (null: all) is not 0, each with this weight.
struct StepWeights {
  const std::uint8_t* valid;
  float weight;
};

struct RecurrentKernels {
  /// Fills packed [num_packed]; `with_backward` also what gradients need.
  void (*pack)(const RecurrentNet&, const float* params, bool with_backward, float* packed) noexcept;
  /// Logits (or means) [.., num_outputs] and values of the sequences; each may be null.
  void (*forward)(const RecurrentNet&, const RecurrentWeights&, const SequenceIn&, const Tape&, const Workspace&,
                  const Placement&, float* logits, float* value) noexcept;
  /// One step of tape.rows rows; mask as in Kernels::act. Their memory afterwards goes to h and c [rows, size].
  void (*act)(const RecurrentNet&, const RecurrentWeights&, const SequenceIn&, const Noise&, const std::uint8_t* mask,
              const Tape&, const Workspace&, const ActOut&, float* h, float* c) noexcept;
  /// Adds the parameters' gradients, from those of the outputs that `forward` gave with this tape.
  void (*backward)(const RecurrentNet&, const RecurrentWeights&, const Tape&, const Workspace&, const Placement&,
                   const float* logit_slopes, const float* value_slopes, const RecurrentSums&) noexcept;
  /// The accumulators, in the order of the parameters.
  void (*finish)(const RecurrentNet&, const RecurrentSums&, float* grad) noexcept;
};

/// Adds the gradients of a fused loss over the sequences, and its statistics; the minibatch's index is the sequences'.
using SequenceGradient = void (*)(const RecurrentNet&, const RecurrentWeights&, const SequenceIn&, const Minibatch&,
                                  const StepWeights&, const PreparedLoss&, const Tape&, const Workspace&,
                                  const RecurrentSums&, LossSums&) noexcept;

}  // namespace shoal
