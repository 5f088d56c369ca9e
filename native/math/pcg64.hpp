// NumPy's default generator: PCG64 (XSL-RR 128/64, O'Neill 2014), seeded through NumPy's SeedSequence.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace shoal {

__extension__ typedef unsigned __int128 uint128;

/// NumPy's SeedSequence for a seed of at most 64 bits: a pool of four 32-bit words mixed until each depends on all.
class SeedSequence {
 public:
  explicit constexpr SeedSequence(std::uint64_t seed) noexcept {
    const std::array<std::uint32_t, 4> entropy{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                                               0, 0};
    std::uint32_t key = 0x43b0d7e5;
    const auto hash = [&key](std::uint32_t word) {
      word ^= key;
      key *= 0x931e8875;
      word *= key;
      return word ^ (word >> 16);
    };
    for (std::size_t i = 0; i < pool_.size(); ++i) {
      pool_[i] = hash(entropy[i]);
    }
    for (std::size_t from = 0; from < pool_.size(); ++from) {
      for (std::size_t to = 0; to < pool_.size(); ++to) {
        if (from != to) {
          const std::uint32_t word = 0xca01f9dd * pool_[to] - 0x4973f715 * hash(pool_[from]);
          pool_[to] = word ^ (word >> 16);
        }
      }
    }
  }

  /// The first four 64-bit words of generate_state.
  [[nodiscard]] constexpr std::array<std::uint64_t, 4> words() const noexcept {
    std::array<std::uint64_t, 4> out{};
    std::uint32_t key = 0x8b51f9dd;
    for (std::size_t i = 0; i < 2 * out.size(); ++i) {
      std::uint32_t word = pool_[i % pool_.size()] ^ key;
      key *= 0x58f38ded;
      word *= key;
      word ^= word >> 16;
      out[i / 2] |= static_cast<std::uint64_t>(word) << (32 * (i % 2));
    }
    return out;
  }

 private:
  std::array<std::uint32_t, 4> pool_{};
};

/// A plain struct: copying it saves or restores the generator. The draws equal np.random.default_rng(seed)'s.
struct Pcg64 {
  uint128 state = 0;
  uint128 increment = 1;
  /// The upper half of the last 64 bits that were drawn for a 32-bit word, until the next such word takes it.
  std::uint64_t half = 0;
  std::uint64_t has_half = 0;

  Pcg64() = default;
  explicit constexpr Pcg64(std::uint64_t seed) noexcept {
    const auto words = SeedSequence(seed).words();
    increment = (static_cast<uint128>(words[2]) << 64 | words[3]) << 1 | 1;
    state = increment + (static_cast<uint128>(words[0]) << 64 | words[1]);
    advance();
  }

  /// Whether a generator that was read from a file can be one.
  [[nodiscard]] constexpr bool valid() const noexcept {
    return (increment & 1) != 0 && has_half <= 1 && half >> 32 == 0;
  }

  constexpr std::uint64_t next_u64() noexcept {
    advance();
    const auto high = static_cast<std::uint64_t>(state >> 64);
    return std::rotr(high ^ static_cast<std::uint64_t>(state), static_cast<int>(high >> 58));
  }
  constexpr std::uint32_t next_u32() noexcept {
    has_half ^= 1;
    if (has_half == 0) {
      return static_cast<std::uint32_t>(half);
    }
    const std::uint64_t word = next_u64();
    half = word >> 32;
    return static_cast<std::uint32_t>(word);
  }
  /// A multiple of 2^-53 in [0, 1).
  constexpr double next_double() noexcept { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }
  /// Generator.uniform(low, high).
  constexpr double uniform(double low, double high) noexcept { return low + (high - low) * next_double(); }
  /// Generator.integers(low, high), the upper end excluded, for a range below 2^32 (Lemire 2019).
  constexpr std::int64_t integer(std::int64_t low, std::int64_t high) noexcept {
    const auto range = static_cast<std::uint32_t>(high - low);
    std::uint64_t product = std::uint64_t{next_u32()} * range;
    if (static_cast<std::uint32_t>(product) < range) {
      const std::uint32_t least = -range % range;
      while (static_cast<std::uint32_t>(product) < least) {
        product = std::uint64_t{next_u32()} * range;
      }
    }
    return low + static_cast<std::int64_t>(product >> 32);
  }

 private:
  constexpr void advance() noexcept {
    constexpr uint128 multiplier = static_cast<uint128>(0x2360ed051fc65da4) << 64 | 0x4385df649fccf645;
    state = state * multiplier + increment;
  }
};

}  // namespace shoal
