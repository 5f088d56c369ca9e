// SplitMix64 (Steele, Lea and Flood 2014): eight bytes of state, for environments that draw while they step.
#pragma once

#include <cstdint>

namespace shoal {

/// A plain struct: copying it saves or restores the generator. Seed it from the row's own:
/// `SplitMix64{rng.next_u64()}`.
struct SplitMix64 {
  std::uint64_t state = 0;

  constexpr std::uint64_t next_u64() noexcept {
    state += 0x9e3779b97f4a7c15;
    std::uint64_t word = state;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
    word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
    return word ^ (word >> 31);
  }
  /// A multiple of 2^-53 in [0, 1).
  constexpr double next_double() noexcept { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }
  constexpr double uniform(double low, double high) noexcept { return low + (high - low) * next_double(); }
  /// 0, 1, ..., n - 1, from the upper 32 bits of a draw; n is small against 2^32.
  constexpr int below(int n) noexcept {
    return static_cast<int>(((next_u64() >> 32) * static_cast<std::uint64_t>(n)) >> 32);
  }
};

}  // namespace shoal
