// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): noise as a pure function of
// (seed, stream, row, row_step), so that a row's draws never depend on its neighbors, threads or batches.
//
// Everything here is `static`: this header is compiled for several instruction sets and must not be merged by the
// linker.
#pragma once

#include <math.h>

#include <cstdint>

namespace shoal {

/// Rows whose words are made together, so that the compiler can use vector instructions.
constexpr int philox_rows = 16;

/// Four 32-bit words for each of philox_rows rows.
struct PhiloxWords {
  std::uint32_t word[4][philox_rows];
};

/// Block `block` of the noise of `count` (<= philox_rows) rows: words 4 * block to 4 * block + 3 of each.
/// key = seed; counter = {row_step low, row_step high, row, stream << 16 | block}.
static inline void philox_words(std::uint64_t seed, std::uint32_t stream, std::uint32_t block, const std::int64_t* rows,
                                const std::int64_t* steps, int count, PhiloxWords& out) noexcept {
  PhiloxWords x;
  for (int i = 0; i < philox_rows; ++i) {
    const int from = i < count ? i : 0;
    const auto step = static_cast<std::uint64_t>(steps[from]);
    x.word[0][i] = static_cast<std::uint32_t>(step);
    x.word[1][i] = static_cast<std::uint32_t>(step >> 32);
    x.word[2][i] = static_cast<std::uint32_t>(rows[from]);
    x.word[3][i] = stream << 16 | block;
  }
  auto key0 = static_cast<std::uint32_t>(seed);
  auto key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < philox_rows; ++i) {
      const std::uint64_t a = std::uint64_t{0xD2511F53} * x.word[0][i];
      const std::uint64_t b = std::uint64_t{0xCD9E8D57} * x.word[2][i];
      x.word[0][i] = static_cast<std::uint32_t>(b >> 32) ^ x.word[1][i] ^ key0;
      x.word[2][i] = static_cast<std::uint32_t>(a >> 32) ^ x.word[3][i] ^ key1;
      x.word[1][i] = static_cast<std::uint32_t>(b);
      x.word[3][i] = static_cast<std::uint32_t>(a);
    }
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  out = x;
}

/// Word 0 of the noise of one row.
static inline std::uint32_t philox_word(std::uint64_t seed, std::uint32_t stream, std::int64_t row,
                                        std::int64_t step) noexcept {
  const auto count = static_cast<std::uint64_t>(step);
  std::uint32_t x[4] = {static_cast<std::uint32_t>(count), static_cast<std::uint32_t>(count >> 32),
                        static_cast<std::uint32_t>(row), stream << 16};
  auto key0 = static_cast<std::uint32_t>(seed);
  auto key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * x[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * x[2];
    x[0] = static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ key0;
    x[2] = static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ key1;
    x[1] = static_cast<std::uint32_t>(b);
    x[3] = static_cast<std::uint32_t>(a);
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return x[0];
}

/// A uniform float32 in [0, 1) from a word: its high 24 bits.
static inline float philox_to_uniform(std::uint32_t word) noexcept { return static_cast<float>(word >> 8) * 0x1p-24F; }

/// Two independent normal float32 from two words, by Box and Muller's formula in double.
static inline void philox_to_normal(std::uint32_t word0, std::uint32_t word1, float& z0, float& z1) noexcept {
  constexpr double two_pi = 6.283185307179586476925;
  const double radius = ::sqrt(-2.0 * ::log((static_cast<double>(word0) + 0.5) * 0x1p-32));
  const double angle = two_pi * (static_cast<double>(word1) * 0x1p-32);
  z0 = static_cast<float>(radius * ::cos(angle));
  z1 = static_cast<float>(radius * ::sin(angle));
}

}  // namespace shoal
