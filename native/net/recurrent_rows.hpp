// Linear layers on samples that lie one after another: packed weights, forward, backward and the weights' gradients.
//
// Lanes hold features, not samples, so that a recurrent step of few rows fills them as well as one of many. The
// products are those of net/dense.hpp with the samples as rows: a sample's result depends on neither its neighbours nor
// how many there are.
#pragma once

#include <cstring>

#include "net/dense.hpp"
#include "net/functions.hpp"
#include "net/recurrent_shape.hpp"

namespace shoal::SHOAL_ISA {

/// to[column][row] = from[row][column], for any number of rows and columns.
static inline void transpose_any(int rows, int columns, const float* from, std::ptrdiff_t from_step, float* to,
                                 std::ptrdiff_t to_step) noexcept {
  constexpr int lanes = static_cast<int>(vec_lanes);
  for (int r = 0; r < rows; r += lanes) {
    for (int c = 0; c < columns; c += lanes) {
      const int here_rows = rows - r < lanes ? rows - r : lanes;
      const int here_columns = columns - c < lanes ? columns - c : lanes;
      if (here_rows == lanes && here_columns == lanes) {
        Vec square[vec_lanes];
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) {
          square[i] = load(from + (r + i) * from_step + c);
        }
        transpose_square(square);
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) {
          store(to + (c + i) * to_step + r, square[i]);
        }
        continue;
      }
      for (int i = 0; i < here_rows; ++i) {
        for (int j = 0; j < here_columns; ++j) {
          to[(c + j) * to_step + r + i] = from[(r + i) * from_step + c + j];
        }
      }
    }
  }
}

/// Fills a layer's packed weights; padding keeps its zeros.
static inline void pack_rows(const RowLayer& layer, const float* params, bool with_backward, float* packed) noexcept {
  const std::ptrdiff_t padded_size = padded(layer.size);
  const std::ptrdiff_t padded_in = padded(layer.in);
  for (int g = 0; g < layer.groups; ++g) {
    const float* const group =
        params + layer.weight + static_cast<std::ptrdiff_t>(layer.order[g]) * layer.size * layer.in;
    transpose_any(layer.size, layer.in, group, layer.in, packed + layer.forward + g * padded_size, layer.columns);
    for (int j = 0; with_backward && j < layer.size; ++j) {
      std::memcpy(packed + layer.backward + (g * padded_size + j) * padded_in,
                  group + static_cast<std::ptrdiff_t>(j) * layer.in,
                  static_cast<std::size_t>(layer.in) * sizeof(float));
    }
  }
}

/// y = W x + bias (lanes of zeros and biases of zero beyond each group's size).
SHOAL_INLINE void rows_forward(const RowLayer& layer, const float* packed, const float* bias, int samples,
                               const float* x, std::ptrdiff_t x_step, float* y, std::ptrdiff_t y_step) noexcept {
  product<Start::columns, false>(samples, layer.columns, {layer.in, x_step, layer.columns, y_step}, x,
                                 packed + layer.forward, y, bias);
}

/// dx = W^T dy, or added to what dx holds.
template <Start S>
SHOAL_INLINE void rows_backward(const RowLayer& layer, const float* packed, int samples, const float* dy,
                                std::ptrdiff_t dy_step, float* dx, std::ptrdiff_t dx_step) noexcept {
  const auto columns = static_cast<int>(padded(layer.in));
  product<S, false>(samples, columns, {layer.columns, dy_step, columns, dx_step}, dy, packed + layer.backward, dx,
                    nullptr);
}

/// Adds the samples' share of the gradient with respect to W, transposed: x^T dy.
SHOAL_INLINE void rows_gradient(const RowLayer& layer, int samples, const float* x, std::ptrdiff_t x_step,
                                const float* dy, std::ptrdiff_t dy_step, float* sums) noexcept {
  product<Start::sum, true>(layer.in, layer.columns, {samples, x_step, dy_step, layer.columns}, x, dy, sums + layer.sum,
                            nullptr);
}

/// Adds the samples' sum of dy to sum[columns].
static inline void add_columns(int samples, int columns, const float* dy, std::ptrdiff_t dy_step, float* sum) noexcept {
  for (int c = 0; c < columns; c += vec_lanes) {
    Vec total = load(sum + c);
    for (int s = 0; s < samples; ++s) {
      total += load(dy + s * dy_step + c);
    }
    store(sum + c, total);
  }
}

/// A shard's sums of a layer's weight, in the order of the parameters.
static inline void finish_rows(const RowLayer& layer, const float* sums, float* grad) noexcept {
  for (int g = 0; g < layer.groups; ++g) {
    transpose_any(layer.in, layer.size, sums + layer.sum + g * padded(layer.size), layer.columns,
                  grad + layer.weight + static_cast<std::ptrdiff_t>(layer.order[g]) * layer.size * layer.in, layer.in);
  }
}

}  // namespace shoal::SHOAL_ISA
