// One step of a GRU (Cho et al. 2014, as cuDNN and torch have it) and of an LSTM (Hochreiter and Schmidhuber 1997, Gers
// et al. 2000), element by element: forward from the gates' sums, backward to them.
#pragma once

#include "net/functions.hpp"
#include "net/recurrent_shape.hpp"

namespace shoal::SHOAL_ISA {

/// The logistic function 1 / (1 + e^-x) as (1 + tanh(x / 2)) / 2.
SHOAL_INLINE Vec sigmoid(Vec x) noexcept { return 0.5F * hyperbolic_tangent(0.5F * x) + 0.5F; }

/// Where one row's numbers of one step stand.
struct CellRow {
  float* gates;
  const float* h_in;
  float* h_out;
  const float* c_in;
  float* c_out;
};

SHOAL_INLINE CellRow cell_row(const Tape& tape, std::ptrdiff_t sample) noexcept {
  const std::ptrdiff_t at = sample * tape.cell_step;
  const bool lstm = tape.c_in != nullptr;
  return {tape.gates + sample * tape.gate_step, tape.h_in + at, tape.h_out + at, lstm ? tape.c_in + at : nullptr,
          lstm ? tape.c_out + at : nullptr};
}

/// Gates become their sigmoids, in place.
SHOAL_INLINE void sigmoids(std::ptrdiff_t size, float* gates) noexcept {
  for (std::ptrdiff_t j = 0; j < size; j += vec_lanes) {
    store(gates + j, sigmoid(load(gates + j)));
  }
}

/// r = sigmoid, z = sigmoid, n = tanh(n + r n'), h = (1 - z) n + z h_in; the gates become their own values.
/// In two passes: an element's n waits for its r, the next elements' r and z need not wait with it.
SHOAL_INLINE void gru_forward(std::ptrdiff_t block, const CellRow& row) noexcept {
  sigmoids(2 * block, row.gates + block);
  for (std::ptrdiff_t j = 0; j < block; j += vec_lanes) {
    float* const gate = row.gates + j;
    const Vec n = hyperbolic_tangent(load(gate) + load(gate + block) * load(gate + 3 * block));
    store(gate, n);
    store(row.h_out + j, n + load(gate + 2 * block) * (load(row.h_in + j) - n));
  }
}

/// c = sigmoid(f) c_in + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c); the gates become their own values.
SHOAL_INLINE void lstm_forward(std::ptrdiff_t block, const CellRow& row) noexcept {
  sigmoids(2 * block, row.gates);
  for (std::ptrdiff_t j = 0; j < block; j += vec_lanes) {
    float* const gate = row.gates + j;
    const Vec g = hyperbolic_tangent(load(gate + 2 * block));
    store(gate + 2 * block, g);
    store(row.c_out + j, load(gate + block) * load(row.c_in + j) + load(gate) * g);
  }
  sigmoids(block, row.gates + 3 * block);
  for (std::ptrdiff_t j = 0; j < block; j += vec_lanes) {
    store(row.h_out + j, load(row.gates + 3 * block + j) * hyperbolic_tangent(load(row.c_out + j)));
  }
}

/// From dh to the gates' sums' gradients, in place, and to the direct part of h_in's into carry_h.
SHOAL_INLINE void gru_backward(std::ptrdiff_t block, const CellRow& row, const float* d_out, float* carry_h) noexcept {
  for (std::ptrdiff_t j = 0; j < block; j += vec_lanes) {
    float* const gate = row.gates + j;
    const Vec n = load(gate);
    const Vec r = load(gate + block);
    const Vec z = load(gate + 2 * block);
    const Vec dh = load(d_out + j) + load(carry_h + j);
    const Vec dn = dh * (1.0F - z) * (1.0F - n * n);
    store(gate, dn);
    store(gate + block, dn * load(gate + 3 * block) * (r - r * r));
    store(gate + 2 * block, dh * (load(row.h_in + j) - n) * (z - z * z));
    store(gate + 3 * block, dn * r);
    store(carry_h + j, dh * z);
  }
}

/// From dh and dc to the gates' sums' gradients, in place, and to c_in's into carry_c.
SHOAL_INLINE void lstm_backward(std::ptrdiff_t block, const CellRow& row, const float* d_out, const float* carry_h,
                                float* carry_c) noexcept {
  for (std::ptrdiff_t j = 0; j < block; j += vec_lanes) {
    float* const gate = row.gates + j;
    const Vec i = load(gate);
    const Vec f = load(gate + block);
    const Vec g = load(gate + 2 * block);
    const Vec o = load(gate + 3 * block);
    const Vec squashed = hyperbolic_tangent(load(row.c_out + j));
    const Vec dh = load(d_out + j) + load(carry_h + j);
    const Vec dc = load(carry_c + j) + dh * o * (1.0F - squashed * squashed);
    store(gate, dc * g * (i - i * i));
    store(gate + block, dc * load(row.c_in + j) * (f - f * f));
    store(gate + 2 * block, dc * i * (1.0F - g * g));
    store(gate + 3 * block, dh * squashed * (o - o * o));
    store(carry_c + j, dc * f);
  }
}

}  // namespace shoal::SHOAL_ISA
