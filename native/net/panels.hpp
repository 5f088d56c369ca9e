// Products with weights that lie in panels: numbers of so many outputs side by side, input after input, so that a
// product reads its weights once, one after another. A row's result never depends on other rows.
#pragma once

#include "net/dense.hpp"
#include "net/functions.hpp"
#include "net/kernels.hpp"

namespace shoal::SHOAL_ISA {

constexpr int panel_vecs = tile_vecs < 2 ? tile_vecs : 2;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int panel_rows = 8;
#else
constexpr int panel_rows = tile_rows(panel_vecs);
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

template <Start S, class Finish>
SHOAL_INLINE void all_panels(const PanelShape& shape, const float* x, const float* panels, const float* bias,
                             float* out, Finish finish) noexcept {
  const Product p{static_cast<int>(shape.in), shape.in, panel_width, shape.out};
  for (std::ptrdiff_t first = 0; first < shape.out; first += panel_width) {
    for (int col = 0; col < panel_width; col += panel_vecs * vec_lanes) {
      panel<panel_rows, panel_vecs, S, false>(static_cast<int>(shape.rows), p, x, panels + col, out + first + col,
                                              S == Start::columns ? bias + first + col : nullptr, finish);
    }
    panels += shape.in * panel_width;
  }
}

template <class Finish>
SHOAL_INLINE void finished_panels(const PanelShape& shape, const float* x, const float* panels, const float* bias,
                                  float* out, Finish finish) noexcept {
  if (bias == nullptr) {
    all_panels<Start::zero>(shape, x, panels, bias, out, finish);
  } else {
    all_panels<Start::columns>(shape, x, panels, bias, out, finish);
  }
}

inline void panel_product(const PanelShape& shape, const float* x, const float* panels, const float* bias,
                          const float* other, PanelFinish finish, float* out) noexcept {
  switch (finish) {
    case PanelFinish::keep:
      return finished_panels(shape, x, panels, bias, out, Keep{});
    case PanelFinish::swish:
      return finished_panels(shape, x, panels, bias, out, Swish{});
    case PanelFinish::times:
      return finished_panels(shape, x, panels, bias, out, TimesOther{other - out});
    case PanelFinish::plus:
      return finished_panels(shape, x, panels, bias, out, PlusOther{other - out});
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
