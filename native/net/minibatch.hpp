// The samples that a minibatch picks from a rollout, as plain numbers that every instruction set's kernels can read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shoal {

struct Minibatch {
  const float* obs;
  const std::int64_t* choice;   ///< of a head that chooses
  const float* action;          ///< of a Gaussian head
  const std::uint8_t* mask;     ///< [samples, options]: 0 where an option is not to be chosen; null: all are
  const float* const* columns;  ///< a loss's own numbers, in the order of its Columns
  const std::int32_t* index;    ///< which samples
  std::ptrdiff_t count;         ///< of index
  float* error = nullptr;       ///< where a loss of values leaves each sample's error [samples]; null: nowhere
};

struct Moments {
  float mean;
  float inv_std;  ///< 1 / (std + 1e-8), std with one degree of freedom less
};

/// Mean and deviation of one column over the minibatch, summed in double in the order of its index. Built once, for the
/// baseline instruction set: its bits are those of every machine.
Moments column_moments(const Minibatch& batch, int column) noexcept;

}  // namespace shoal
