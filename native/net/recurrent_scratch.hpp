// Memory that a recurrent plan makes once and reuses: tapes, and what acting and a shard's gradient need.
#pragma once

#include <algorithm>

#include "net/recurrent_shape.hpp"
#include "net/scratch.hpp"

namespace shoal {

/// The buffers of one tape; they grow to the largest that was asked for.
class TapeMemory {
 public:
  TapeMemory() : floats_(0), start_(0), index_(0) {}

  /// Room for `rows` sequences of `steps` steps.
  void reserve(const RecurrentNet& net, std::ptrdiff_t steps, std::ptrdiff_t rows) {
    const std::ptrdiff_t samples = (steps * rows + chunk_samples - 1) / chunk_samples * chunk_samples;
    if (samples <= samples_ && rows <= rows_) {
      return;
    }
    samples_ = std::max(samples, samples_);
    rows_ = std::max(rows, rows_);
    int widest = 0;
    for (int l = 0; l < net.depth; ++l) {
      widest = std::max(widest, net.body[l].size);
    }
    tape_ = Tape{};
    tape_.obs_step = row_step(net.obs_size);
    tape_.hidden_step = row_step(widest);
    tape_.hidden_stride = samples_ * tape_.hidden_step;
    tape_.gate_step = row_step(max_gates * padded(net.size));
    tape_.cell_step = row_step(net.size);
    const int states = net.cell == Cell::lstm ? 5 : 3;
    floats_ = Buffer<float>(
        samples_ * (tape_.obs_step + net.depth * tape_.hidden_step + tape_.gate_step + states * tape_.cell_step) +
        2 * chunk_samples * tape_.hidden_step + 2 * rows_ * tape_.cell_step);
    start_ = Buffer<std::uint8_t>(samples_);
    index_ = Buffer<std::int32_t>(samples_);
    place_buffers(net);
  }

  /// The tape of `rows` sequences of `steps` steps, which have been reserved.
  [[nodiscard]] Tape tape(int steps, int rows) const noexcept {
    Tape tape = tape_;
    tape.steps = steps;
    tape.rows = rows;
    return tape;
  }

  /// Room for the number of each of the tape's samples.
  [[nodiscard]] std::int32_t* index() const noexcept { return index_.data(); }

 private:
  void place_buffers(const RecurrentNet& net) noexcept {
    float* next = floats_.data();
    const auto take = [&next](std::ptrdiff_t size) {
      float* const here = next;
      next += size;
      return here;
    };
    tape_.start = start_.data();
    tape_.obs = take(samples_ * tape_.obs_step);
    tape_.hidden = take(net.depth * tape_.hidden_stride);
    tape_.gates = take(samples_ * tape_.gate_step);
    tape_.h_in = take(samples_ * tape_.cell_step);
    tape_.h_out = take(samples_ * tape_.cell_step);
    tape_.d_out = take(samples_ * tape_.cell_step);
    if (net.cell == Cell::lstm) {
      tape_.c_in = take(samples_ * tape_.cell_step);
      tape_.c_out = take(samples_ * tape_.cell_step);
    }
    tape_.delta = take(chunk_samples * tape_.hidden_step);
    tape_.delta_next = take(chunk_samples * tape_.hidden_step);
    tape_.carry_h = take(rows_ * tape_.cell_step);
    tape_.carry_c = take(rows_ * tape_.cell_step);
  }

  std::ptrdiff_t samples_ = 0;
  std::ptrdiff_t rows_ = 0;
  Buffer<float> floats_;
  Buffer<std::uint8_t> start_;
  Buffer<std::int32_t> index_;
  Tape tape_{};
};

/// What one thread needs to act and step a block of rows.
struct RecurrentActMemory : ActMemory {
  RecurrentActMemory(const RecurrentNet& net, int block) : ActMemory(net.heads, net.obs_size, block) {
    tape.reserve(net, 1, block);
  }
  TapeMemory tape;
};

/// What one part of a minibatch needs for its gradient.
struct RecurrentShardMemory {
  explicit RecurrentShardMemory(const RecurrentNet& net)
      : chunk(net.heads), sequence_sums(net.num_sums), head_sums(net.heads.num_sums), grad(net.num_params) {}

  [[nodiscard]] RecurrentSums sums() const noexcept { return {sequence_sums.data(), head_sums.data()}; }

  ChunkMemory chunk;
  Buffer<float> sequence_sums;
  Buffer<float> head_sums;
  Buffer<float> grad;
  std::vector<TapeMemory> tapes;  ///< the first one serves all chunks unless they are kept for `backward`
  LossSums totals{};
};

}  // namespace shoal
