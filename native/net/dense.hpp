// Matrix products over chunks of samples, and a Linear layer's forward and backward made of them.
//
// One micro-kernel serves all three products of a layer. It keeps a tile of C in registers and adds A's numbers, one
// broadcast for each row, times B's vectors, in the order of k: a sample's result never depends on its neighbours. What
// comes right after a product (an activation, its slope) is done on the registers.
#pragma once

#include "net/shape.hpp"
#include "net/vec.hpp"

namespace shoal::SHOAL_ISA {

/// What a tile of C starts from: zero, a bias for each row, a bias for each column, or what C holds.
enum class Start : std::uint8_t { zero, bias, columns, sum };

/// C[rows][cols] = start + sum_k A[row][k] * B[k][col]; a leading dimension counts floats from one row to the next.
struct Product {
  int depth;
  std::ptrdiff_t a_step;
  std::ptrdiff_t b_step;
  std::ptrdiff_t c_step;
};

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int tile_vecs = 4;  // 32 registers: 6 x 4, 12 x 2 and 12 x 1 sums
constexpr int tile_rows(int vecs) { return vecs == 4 ? 6 : 12; }
#elif defined(__FMA__)
constexpr int tile_vecs = 2;  // 16 registers: 6 x 2 and 12 x 1
constexpr int tile_rows(int vecs) { return vecs == 2 ? 6 : 12; }
#else
constexpr int tile_vecs = 2;  // 16 registers, and a product needs one of its own: 4 x 2 and 8 x 1
constexpr int tile_rows(int vecs) { return vecs == 2 ? 4 : 8; }
#endif

/// What becomes of a product's numbers when they are done: nothing.
struct Keep {
  SHOAL_INLINE_MEMBER Vec operator()(Vec x, const float* /*place*/) const noexcept { return x; }
};

/// One tile of M rows and V vectors. Transposed: A is stored [k][row]. finish(x, c) gives what is stored at c.
template <int M, int V, Start S, bool Transposed, class Finish>
void tile(const Product& p, const float* a, const float* b, float* c, const float* bias, Finish finish) noexcept {
  Vec sum[M][V];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      if constexpr (S == Start::zero) {
        sum[m][v] = Vec{};
      } else if constexpr (S == Start::bias) {
        sum[m][v] = splat(bias[m]);
      } else if constexpr (S == Start::columns) {
        sum[m][v] = load(bias + v * vec_lanes);
      } else {
        sum[m][v] = load(c + m * p.c_step + v * vec_lanes);
      }
    }
  }
#pragma GCC unroll 2
  for (int k = 0; k < p.depth; ++k) {
    Vec x[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      x[v] = load(b + v * vec_lanes);
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const float w = Transposed ? a[m] : a[m * p.a_step];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        sum[m][v] += x[v] * w;
      }
    }
    a += Transposed ? p.a_step : 1;
    b += p.b_step;
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      float* const to = c + m * p.c_step + v * vec_lanes;
      store(to, finish(sum[m][v], to));
    }
  }
}

/// All rows of one panel of V vectors: tiles of M rows, then the rest by smaller ones.
template <int M, int V, Start S, bool Transposed, class Finish>
SHOAL_INLINE void panel(int rows, const Product& p, const float* a, const float* b, float* c, const float* bias,
                        Finish finish) noexcept {
  while (rows >= M) {
    tile<M, V, S, Transposed>(p, a, b, c, bias, finish);
    rows -= M;
    a += M * (Transposed ? 1 : p.a_step);
    c += M * p.c_step;
    bias += S == Start::bias ? M : 0;
  }
  if constexpr (M > 1) {
    constexpr int next = M > 4 ? 4 : M / 2;
    panel<next, V, S, Transposed>(rows, p, a, b, c, bias, finish);
  }
}

/// The whole product; `cols` is a multiple of vec_lanes.
template <Start S, bool Transposed, int V = tile_vecs, class Finish = Keep>
void product(int rows, int cols, const Product& p, const float* a, const float* b, float* c, const float* bias,
             Finish finish = {}) noexcept {
  while (cols >= V * vec_lanes) {
    panel<tile_rows(V), V, S, Transposed>(rows, p, a, b, c, bias, finish);
    cols -= V * vec_lanes;
    b += V * vec_lanes;
    c += V * vec_lanes;
    bias += S == Start::columns ? V * vec_lanes : 0;
  }
  if constexpr (V > 1) {
    product<S, Transposed, V / 2>(rows, cols, p, a, b, c, bias, finish);
  }
}

/// y = finish(W x + b) for `width` samples (a multiple of vec_lanes).
template <class Finish = Keep>
SHOAL_INLINE void dense_forward(const Dense& layer, const float* params, int width, const float* x, float* y,
                                Finish finish = {}) noexcept {
  product<Start::bias, false>(layer.out, width, {layer.in, layer.in, chunk_samples, chunk_samples},
                              params + layer.weight, x, y, params + layer.bias, finish);
}

/// The gradient of the loss with respect to x, from that with respect to y: dx = finish(W^T dy).
template <class Finish = Keep>
SHOAL_INLINE void dense_backward(const Dense& layer, const float* params, int width, const float* dy, float* dx,
                                 Finish finish = {}) noexcept {
  product<Start::zero, true>(layer.in, width, {layer.out, layer.in, chunk_samples, chunk_samples},
                             params + layer.weight, dy, dx, nullptr, finish);
}

/// to[sample][feature] = from[feature][sample], for features and samples in multiples of vec_lanes.
static inline void transpose(int features, int width, const float* from, std::ptrdiff_t to_step, float* to) noexcept {
  for (int f = 0; f < features; f += vec_lanes) {
    for (int s = 0; s < width; s += vec_lanes) {
      Vec rows[vec_lanes];
#pragma GCC unroll 16
      for (int i = 0; i < vec_lanes; ++i) {
        rows[i] = load(from + (f + i) * chunk_samples + s);
      }
      transpose_square(rows);
#pragma GCC unroll 16
      for (int i = 0; i < vec_lanes; ++i) {
        store(to + (s + i) * to_step + f, rows[i]);
      }
    }
  }
}

/// Adds dy's and x's products lane by lane for O outputs and I inputs: sums[o][i][pad_size].
template <Start S, int O, int I>
SHOAL_INLINE void narrow_tile(int in, int width, const float* x, const float* dy, float* sums) noexcept {
  Vec sum[O][I];
#pragma GCC unroll 4
  for (int o = 0; o < O; ++o) {
#pragma GCC unroll 4
    for (int i = 0; i < I; ++i) {
      sum[o][i] = S == Start::zero ? Vec{} : load(sums + (o * in + i) * pad_size);
    }
  }
  for (int s = 0; s < width; s += vec_lanes) {
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) {
      const Vec d = load(dy + o * chunk_samples + s);
#pragma GCC unroll 4
      for (int i = 0; i < I; ++i) {
        sum[o][i] += d * load(x + i * chunk_samples + s);
      }
    }
  }
#pragma GCC unroll 4
  for (int o = 0; o < O; ++o) {
#pragma GCC unroll 4
    for (int i = 0; i < I; ++i) {
      store(sums + (o * in + i) * pad_size, sum[o][i]);
    }
  }
}

/// All inputs of O outputs, I at a time and the rest one by one.
template <Start S, int O, int I>
SHOAL_INLINE void narrow_rows(int in, int width, const float* x, const float* dy, float* sums) noexcept {
  int i = 0;
  for (; i + I <= in; i += I) {
    narrow_tile<S, O, I>(in, width, x + i * chunk_samples, dy, sums + i * pad_size);
  }
  for (; i < in; ++i) {
    narrow_tile<S, O, 1>(in, width, x + i * chunk_samples, dy, sums + i * pad_size);
  }
}

/// The gradient with respect to a weight of few rows or columns, left as lanes: sums[out][in][pad_size].
template <Start S>
static inline void add_narrow(const Dense& layer, int width, const float* x, const float* dy, float* sums) noexcept {
  constexpr int outputs = tile_vecs;  // as many sums as a tile of the product, or fewer
  int o = 0;
  for (; o + outputs <= layer.out; o += outputs) {
    narrow_rows<S, outputs, 4>(layer.in, width, x, dy + o * chunk_samples,
                               sums + static_cast<std::ptrdiff_t>(o) * layer.in * pad_size);
  }
  for (; o < layer.out; ++o) {
    narrow_rows<S, 1, 4>(layer.in, width, x, dy + o * chunk_samples,
                         sums + static_cast<std::ptrdiff_t>(o) * layer.in * pad_size);
  }
}

template <Start S>
SHOAL_INLINE void dense_gradient_from(const Dense& layer, int count, int width, const float* x, const float* dy,
                                      float* transposed, float* sums) noexcept {
  for (int o = 0; o < layer.out; ++o) {
    Vec sum = S == Start::zero ? Vec{} : load(sums + layer.sum_bias + o * pad_size);
    for (int s = 0; s < width; s += vec_lanes) {
      sum += load(dy + o * chunk_samples + s);
    }
    store(sums + layer.sum_bias + o * pad_size, sum);
  }
  if (layer.narrow) {
    add_narrow<S>(layer, width, x, dy, sums + layer.sum_weight);
    return;
  }
  const auto columns = static_cast<int>(padded(layer.in));
  transpose(columns, width, x, columns, transposed);
  product<S, false>(layer.out, columns, {count, chunk_samples, columns, columns}, dy, transposed,
                    sums + layer.sum_weight, nullptr);
}

/// Adds the chunk's share of the gradients with respect to W (dy x^T) and b (dy's sums) to a shard's accumulators, or
/// sets them. Lanes beyond `count` hold dy = 0 and a finite x.
static inline void dense_gradient(const Dense& layer, int count, int width, const float* x, const float* dy,
                                  float* transposed, float* sums, Start start = Start::sum) noexcept {
  if (start == Start::zero) {
    dense_gradient_from<Start::zero>(layer, count, width, x, dy, transposed, sums);
  } else {
    dense_gradient_from<Start::sum>(layer, count, width, x, dy, transposed, sums);
  }
}

/// Sums of the lanes of `many` accumulators.
static inline void sum_lanes(const float* sums, std::ptrdiff_t many, float* out) noexcept {
  for (std::ptrdiff_t i = 0; i < many; i += vec_lanes) {
    const int here = many - i < vec_lanes ? static_cast<int>(many - i) : vec_lanes;
    Vec rows[vec_lanes];
    for (int j = 0; j < vec_lanes; ++j) {
      rows[j] = j < here ? load(sums + (i + j) * pad_size) : Vec{};
    }
    const Vec total = lane_sums(rows);
    for (int j = 0; j < here; ++j) {
      out[i + j] = total[j];
    }
  }
}

/// A shard's accumulators, in the order of the parameters.
SHOAL_INLINE void finish_gradient(const Dense& layer, const float* sums, float* grad) noexcept {
  sum_lanes(sums + layer.sum_bias, layer.out, grad + layer.bias);
  if (layer.narrow) {
    sum_lanes(sums + layer.sum_weight, static_cast<std::ptrdiff_t>(layer.out) * layer.in, grad + layer.weight);
    return;
  }
  const std::ptrdiff_t step = padded(layer.in);
  for (int o = 0; o < layer.out; ++o) {
    for (int i = 0; i < layer.in; ++i) {
      grad[layer.weight + static_cast<std::ptrdiff_t>(o) * layer.in + i] = sums[layer.sum_weight + o * step + i];
    }
  }
}

}  // namespace shoal::SHOAL_ISA
