// Sums over a minibatch whose bits must not depend on the instruction set.
#include "net/minibatch.hpp"

#include <algorithm>
#include <cmath>

namespace shoal {

Moments column_moments(const Minibatch& batch, int column) noexcept {
  const float* const values = batch.columns[column];
  const auto count = static_cast<double>(std::max<std::ptrdiff_t>(batch.count, 1));
  double sum = 0.0;
  for (std::ptrdiff_t i = 0; i < batch.count; ++i) {
    sum += static_cast<double>(values[batch.index[i]]);
  }
  const double mean = sum / count;
  double squares = 0.0;
  for (std::ptrdiff_t i = 0; i < batch.count; ++i) {
    const double away = static_cast<double>(values[batch.index[i]]) - mean;
    squares += away * away;
  }
  const double std = std::sqrt(squares / std::max(count - 1.0, 1.0));
  return {static_cast<float>(mean), static_cast<float>(1.0 / (std + 1e-8))};
}

}  // namespace shoal
