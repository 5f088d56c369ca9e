// The machine's limit: nothing but fused multiply-adds on registers, for benchmarks to be held against.
#pragma once

#include "net/vec.hpp"

namespace shoal::SHOAL_ISA {

constexpr int peak_chains = 12;  ///< independent sums: enough to hide the latency of two units

/// Floating-point operations that `multiply_adds(rounds)` does.
static double multiply_add_flops(std::ptrdiff_t rounds) noexcept {
  return 2.0 * peak_chains * static_cast<double>(vec_lanes) * static_cast<double>(rounds);
}

/// `rounds` times a multiply-add on each chain; returns a number that depends on all, so that none is left out.
static float multiply_adds(std::ptrdiff_t rounds) noexcept {
  Vec sums[peak_chains];
  for (int chain = 0; chain < peak_chains; ++chain) {
    sums[chain] = splat(static_cast<float>(chain));
  }
  const Vec factor = splat(0.999F);
  const Vec term = splat(0.001F);
  for (std::ptrdiff_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int chain = 0; chain < peak_chains; ++chain) {
      sums[chain] = sums[chain] * factor + term;
    }
  }
  Vec total = sums[0];
  for (int chain = 1; chain < peak_chains; ++chain) {
    total += sums[chain];
  }
  return static_cast<float>(lane_total(total));
}

}  // namespace shoal::SHOAL_ISA
