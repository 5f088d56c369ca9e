// Products with weights that lie in panels: numbers of so many outputs side by side, input after input, so that a
// product reads its weights once, one after another. A row's result never depends on other rows.
#pragma once

#include "net/dense.hpp"
#include "net/functions.hpp"
#include "net/kernels.hpp"

namespace shoal::SHOAL_ISA {

constexpr int panel_vecs = 2;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int panel_rows = 8;  // 32 registers
#else
constexpr int panel_rows = 4;  // 16
#endif
static_assert(panel_width % (panel_vecs * vec_lanes) == 0);

/// x / (1 + e^-x).
struct Swish {
  SHOAL_INLINE_MEMBER Vec operator()(Vec x, const float* /*place*/) const noexcept {
    return x * reciprocal(1.0F + exponential(-x));
  }
};

/// Times what stands at the same place of another array.
struct TimesOther {
  std::ptrdiff_t from_place;
  SHOAL_INLINE_MEMBER Vec operator()(Vec x, const float* place) const noexcept { return x * load(place + from_place); }
};

/// Plus what stands there.
struct PlusOther {
  std::ptrdiff_t from_place;
  SHOAL_INLINE_MEMBER Vec operator()(Vec x, const float* place) const noexcept { return x + load(place + from_place); }
};

/// Where a tile of a product begins in all arrays.
struct PanelTile {
  const float* x;
  const float* weights;
  const float* bias;  ///< null: none
  float* out;
};

/// M rows of some columns of a panel. Meanwhile the same columns of the next panel are fetched: memory is no slower
/// than the arithmetic of a few rows, if it is asked in time.
template <int M, class Finish>
static inline void panel_tile(const PanelShape& shape, PanelTile at, Finish finish) noexcept {
  Vec sum[M][panel_vecs];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    for (int v = 0; v < panel_vecs; ++v) {
      sum[m][v] = at.bias == nullptr ? Vec{} : load(at.bias + v * vec_lanes);
    }
  }
  const float* next = at.weights + shape.in * panel_width;
#pragma GCC unroll 2
  for (std::ptrdiff_t k = 0; k < shape.in; ++k) {
    Vec w[panel_vecs];
#pragma GCC unroll 4
    for (int v = 0; v < panel_vecs; ++v) {
      w[v] = load(at.weights + v * vec_lanes);
      __builtin_prefetch(next + v * vec_lanes, 0, 2);
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const float x = at.x[m * shape.in];
#pragma GCC unroll 4
      for (int v = 0; v < panel_vecs; ++v) {
        sum[m][v] += w[v] * x;
      }
    }
    ++at.x;
    at.weights += panel_width;
    next += panel_width;
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < panel_vecs; ++v) {
      float* const to = at.out + m * shape.out + v * vec_lanes;
      store(to, finish(sum[m][v], to));
    }
  }
}

/// All rows of some columns: tiles of M rows, then the rest by smaller ones.
template <int M, class Finish>
SHOAL_INLINE void panel_columns(std::ptrdiff_t rows, const PanelShape& shape, PanelTile at, Finish finish) noexcept {
  while (rows >= M) {
    panel_tile<M>(shape, at, finish);
    rows -= M;
    at.x += M * shape.in;
    at.out += M * shape.out;
  }
  if constexpr (M > 1) {
    panel_columns<M / 2>(rows, shape, at, finish);
  }
}

template <class Finish>
SHOAL_INLINE void all_panels(const PanelShape& shape, const PanelTile& all, Finish finish) noexcept {
  for (std::ptrdiff_t first = 0; first < shape.out; first += panel_width) {
    for (std::ptrdiff_t col = 0; col < panel_width; col += panel_vecs * vec_lanes) {
      const PanelTile at{all.x, all.weights + first * shape.in + col,
                         all.bias == nullptr ? nullptr : all.bias + first + col, all.out + first + col};
      panel_columns<panel_rows>(shape.rows, shape, at, finish);
    }
  }
}

inline void panel_product(const PanelShape& shape, const float* x, const float* panels, const float* bias,
                          const float* other, PanelFinish finish, float* out) noexcept {
  const PanelTile all{x, panels, bias, out};
  switch (finish) {
    case PanelFinish::keep:
      return all_panels(shape, all, Keep{});
    case PanelFinish::swish:
      return all_panels(shape, all, Swish{});
    case PanelFinish::times:
      return all_panels(shape, all, TimesOther{other - out});
    case PanelFinish::plus:
      return all_panels(shape, all, PlusOther{other - out});
  }
}

/// Weights [out, in] as panels [out / panel_width, in, panel_width].
inline void pack_panels(const float* weights, std::ptrdiff_t out, std::ptrdiff_t in, float* panels) noexcept {
  const std::ptrdiff_t whole = in - in % vec_lanes;
  for (std::ptrdiff_t first = 0; first < out; first += panel_width) {
    for (std::ptrdiff_t row = 0; row < panel_width; row += vec_lanes) {
      const float* from = weights + (first + row) * in;
      for (std::ptrdiff_t k = 0; k < whole; k += vec_lanes) {
        Vec square[vec_lanes];
#pragma GCC unroll 16
        for (int i = 0; i < vec_lanes; ++i) {
          square[i] = load(from + i * in + k);
        }
        transpose_square(square);
#pragma GCC unroll 16
        for (int i = 0; i < vec_lanes; ++i) {
          store(panels + (k + i) * panel_width + row, square[i]);
        }
      }
      for (std::ptrdiff_t k = whole; k < in; ++k) {
        for (int i = 0; i < vec_lanes; ++i) {
          panels[k * panel_width + row + i] = from[i * in + k];
        }
      }
    }
    panels += in * panel_width;
  }
}

}  // namespace shoal::SHOAL_ISA
