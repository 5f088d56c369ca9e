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

/// `rows` of a tile that has room for M: one tile of just so many.
template <int M, int V, Start S, bool Transposed>
SHOAL_INLINE void exact_tile(int rows, const Product& p, const float* a, const float* b, float* c,
                             const float* bias) noexcept {
  if constexpr (M > 1) {
    if (rows < M) {
      exact_tile<M - 1, V, S, Transposed>(rows, p, a, b, c, bias);
      return;
    }
  }
  tile<M, V, S, Transposed>(p, a, b, c, bias, Keep{});
}

/// All rows of one panel, in tiles as even as they can be: of few rows a small rest would cost as much as a whole tile.
template <int V, Start S, bool Transposed>
SHOAL_INLINE void even_tiles(int rows, const Product& p, const float* a, const float* b, float* c,
                             const float* bias) noexcept {
  constexpr int most = tile_rows(V);
  while (rows > 0) {
    int here = rows < most ? rows : most;
    if (rows > most && rows < 2 * most) {
      here = (rows + 1) / 2;
    }
    exact_tile<most, V, S, Transposed>(here, p, a, b, c, bias);
    rows -= here;
    a += here * (Transposed ? 1 : p.a_step);
    c += here * p.c_step;
  }
}

/// Which of a product's matrices lies in panels.
enum class Panels : std::uint8_t { b, c };

/// The product of net/dense.hpp with B (the weights) or C (their gradient) in panels: as many columns as a tile has,
/// row after row, so that a tile reads one stretch of memory. `cols` is a multiple of vec_lanes.
template <Panels In, Start S, bool Transposed, int V = tile_vecs>
void panel_product(int rows, int cols, Product p, const float* a, const float* b, float* c,
                   const float* bias) noexcept {
  constexpr std::ptrdiff_t width = V * vec_lanes;
  (In == Panels::b ? p.b_step : p.c_step) = width;
  while (cols >= width) {
    even_tiles<V, S, Transposed>(rows, p, a, b, c, bias);
    cols -= static_cast<int>(width);
    b += In == Panels::b ? p.depth * width : width;
    c += In == Panels::c ? rows * width : width;
    bias += S == Start::columns ? width : 0;
  }
  if constexpr (V > 1) {
    panel_product<In, S, Transposed, V / 2>(rows, cols, p, a, b, c, bias);
  }
}

/// Where a column stands in a matrix of panels with `depth` rows: its first number, and the step to the next row.
struct PanelPlace {
  std::ptrdiff_t first;
  std::ptrdiff_t step;
};

static inline PanelPlace panel_place(int depth, int columns, int column) noexcept {
  std::ptrdiff_t start = 0;
  std::ptrdiff_t width = tile_vecs * vec_lanes;
  while (column >= start + (columns - start) / width * width) {
    start += (columns - start) / width * width;
    width /= 2;
  }
  const std::ptrdiff_t within = (column - start) % width;
  return {depth * (column - within) + within, width};
}

/// Fills a layer's packed weights; padding keeps its zeros.
static inline void pack_rows(const RowLayer& layer, const float* params, bool with_backward, float* packed) noexcept {
  constexpr int lanes = static_cast<int>(vec_lanes);
  const std::ptrdiff_t padded_size = padded(layer.size);
  const auto padded_in = static_cast<int>(padded(layer.in));
  for (int g = 0; g < layer.groups; ++g) {
    const float* const group =
        params + layer.weight + static_cast<std::ptrdiff_t>(layer.order[g]) * layer.size * layer.in;
    for (int j = 0; j < layer.size; j += lanes) {
      const PanelPlace place = panel_place(layer.in, layer.columns, static_cast<int>(g * padded_size) + j);
      const int here = layer.size - j < lanes ? layer.size - j : lanes;
      transpose_any(here, layer.in, group + static_cast<std::ptrdiff_t>(j) * layer.in, layer.in,
                    packed + layer.forward + place.first, place.step);
    }
    for (int i = 0; with_backward && i < layer.in; i += lanes) {
      const PanelPlace place = panel_place(layer.columns, padded_in, i);
      const std::ptrdiff_t here = layer.in - i < lanes ? layer.in - i : lanes;
      float* const to = packed + layer.backward + place.first + g * padded_size * place.step;
      for (std::ptrdiff_t j = 0; j < layer.size; ++j) {
        const float* const from = group + j * layer.in + i;
        if (here == vec_lanes) {
          store(to + j * place.step, load(from));
        } else {
          std::memcpy(to + j * place.step, from, static_cast<std::size_t>(here) * sizeof(float));
        }
      }
    }
  }
}

/// y = W x + bias, or W x added to what y holds (zeros beyond each group's size).
template <Start S>
SHOAL_INLINE void rows_forward(const RowLayer& layer, const float* packed, const float* bias, int samples,
                               const float* x, std::ptrdiff_t x_step, float* y, std::ptrdiff_t y_step) noexcept {
  panel_product<Panels::b, S, false>(samples, layer.columns, {layer.in, x_step, 0, y_step}, x, packed + layer.forward,
                                     y, bias);
}

/// dx = W^T dy, or added to what dx holds.
template <Start S>
SHOAL_INLINE void rows_backward(const RowLayer& layer, const float* packed, int samples, const float* dy,
                                std::ptrdiff_t dy_step, float* dx, std::ptrdiff_t dx_step) noexcept {
  panel_product<Panels::b, S, false>(samples, static_cast<int>(padded(layer.in)), {layer.columns, dy_step, 0, dx_step},
                                     dy, packed + layer.backward, dx, nullptr);
}

/// Adds the samples' share of the gradient with respect to W, transposed: x^T dy.
SHOAL_INLINE void rows_gradient(const RowLayer& layer, int samples, const float* x, std::ptrdiff_t x_step,
                                const float* dy, std::ptrdiff_t dy_step, float* sums) noexcept {
  panel_product<Panels::c, Start::sum, true>(layer.in, layer.columns, {samples, x_step, dy_step, 0}, x, dy,
                                             sums + layer.sum, nullptr);
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
  constexpr int lanes = static_cast<int>(vec_lanes);
  const auto padded_size = static_cast<int>(padded(layer.size));
  for (int g = 0; g < layer.groups; ++g) {
    float* const group = grad + layer.weight + static_cast<std::ptrdiff_t>(layer.order[g]) * layer.size * layer.in;
    for (int j = 0; j < layer.size; j += lanes) {
      const PanelPlace place = panel_place(layer.in, layer.columns, g * padded_size + j);
      const int here = layer.size - j < lanes ? layer.size - j : lanes;
      transpose_any(layer.in, here, sums + layer.sum + place.first, place.step,
                    group + static_cast<std::ptrdiff_t>(j) * layer.in, layer.in);
    }
  }
}

}  // namespace shoal::SHOAL_ISA
