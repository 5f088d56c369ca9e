// Lanes of doubles, and the sines and cosines of small angles in them with libm's bits.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace shoal {

template <class V, class T>
[[gnu::always_inline]] inline void load_lanes(V& lanes, const T* from) noexcept {
  std::memcpy(&lanes, from, sizeof(V));
}
template <class V, class T>
[[gnu::always_inline]] inline void store_lanes(const V& lanes, T* to) noexcept {
  std::memcpy(to, &lanes, sizeof(V));
}

/// Doubles or 64-bit words that are computed with as one. Masks are bits of words: g++ 12 takes comparisons of vectors
/// apart. `to_fields` turns vectors that hold consecutive records of four doubles into one vector a field; `to_records`
/// is the way back.
struct Lanes4 {
  static constexpr std::size_t size = 4;
  typedef double F __attribute__((vector_size(32)));
  typedef std::uint64_t U __attribute__((vector_size(32)));
  typedef float F32 __attribute__((vector_size(16)));
  typedef std::uint8_t U8 __attribute__((vector_size(4)));

  [[gnu::always_inline]] static void to_fields(F& a, F& b, F& c, F& d) noexcept {
    const F ab02 = __builtin_shufflevector(a, b, 0, 4, 2, 6);
    const F ab13 = __builtin_shufflevector(a, b, 1, 5, 3, 7);
    const F cd02 = __builtin_shufflevector(c, d, 0, 4, 2, 6);
    const F cd13 = __builtin_shufflevector(c, d, 1, 5, 3, 7);
    a = __builtin_shufflevector(ab02, cd02, 0, 1, 4, 5);
    b = __builtin_shufflevector(ab13, cd13, 0, 1, 4, 5);
    c = __builtin_shufflevector(ab02, cd02, 2, 3, 6, 7);
    d = __builtin_shufflevector(ab13, cd13, 2, 3, 6, 7);
  }
  [[gnu::always_inline]] static void to_records(F& a, F& b, F& c, F& d) noexcept { to_fields(a, b, c, d); }
};

struct Lanes8 {
  static constexpr std::size_t size = 8;
  typedef double F __attribute__((vector_size(64)));
  typedef std::uint64_t U __attribute__((vector_size(64)));
  typedef float F32 __attribute__((vector_size(32)));
  typedef std::uint8_t U8 __attribute__((vector_size(8)));

  [[gnu::always_inline]] static void to_fields(F& a, F& b, F& c, F& d) noexcept {
    const F ab01 = __builtin_shufflevector(a, b, 0, 4, 8, 12, 1, 5, 9, 13);
    const F cd01 = __builtin_shufflevector(c, d, 0, 4, 8, 12, 1, 5, 9, 13);
    const F ab23 = __builtin_shufflevector(a, b, 2, 6, 10, 14, 3, 7, 11, 15);
    const F cd23 = __builtin_shufflevector(c, d, 2, 6, 10, 14, 3, 7, 11, 15);
    a = __builtin_shufflevector(ab01, cd01, 0, 1, 2, 3, 8, 9, 10, 11);
    b = __builtin_shufflevector(ab01, cd01, 4, 5, 6, 7, 12, 13, 14, 15);
    c = __builtin_shufflevector(ab23, cd23, 0, 1, 2, 3, 8, 9, 10, 11);
    d = __builtin_shufflevector(ab23, cd23, 4, 5, 6, 7, 12, 13, 14, 15);
  }
  [[gnu::always_inline]] static void to_records(F& a, F& b, F& c, F& d) noexcept {
    const F ab_low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    const F cd_low = __builtin_shufflevector(c, d, 0, 8, 1, 9, 2, 10, 3, 11);
    const F ab_high = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
    const F cd_high = __builtin_shufflevector(c, d, 4, 12, 5, 13, 6, 14, 7, 15);
    a = __builtin_shufflevector(ab_low, cd_low, 0, 1, 8, 9, 2, 3, 10, 11);
    b = __builtin_shufflevector(ab_low, cd_low, 4, 5, 12, 13, 6, 7, 14, 15);
    c = __builtin_shufflevector(ab_high, cd_high, 0, 1, 8, 9, 2, 3, 10, 11);
    d = __builtin_shufflevector(ab_high, cd_high, 4, 5, 12, 13, 6, 7, 14, 15);
  }
};

/// Sines and cosines of a block of angles, with libm's bits.
///
/// For |angle| < 0.22 a vector pass gives each value as a double and the rest that rounding left, true to 0.027 units
/// in the last place (sine) and 0.002 (cosine). A libm that errs by less than 0.518 units, glibc's documented bound,
/// must return that double unless the true value lies within 0.045 (sine) or 0.020 (cosine) units of the middle between
/// two doubles. Those few angles, and large ones, are left to libm itself.
template <std::size_t N>
struct SineBlock {
  static constexpr double max_angle = 0.22;
  alignas(64) std::array<double, N> angle;
  alignas(64) std::array<double, N> sine;
  alignas(64) std::array<double, N> cosine;
  alignas(64) std::array<std::uint8_t, N> unsure;  ///< 1: the sine, 2: the cosine

  /// Computes elements [i, i + V::size) of sine, cosine and unsure.
  template <class V>
  [[gnu::always_inline]] void compute(std::size_t i) noexcept {
    using F = typename V::F;
    using U = typename V::U;
    F x;
    load_lanes(x, &angle[i]);
    const F x2 = x * x;

    // sin x = x + x^3 (-1/3! + x^2/5! - ...); x dominates, so one exact sum catches what rounding leaves.
    F odd = x2 * (1.0 / 6227020800) - 1.0 / 39916800;
    odd = odd * x2 + 1.0 / 362880;
    odd = odd * x2 - 1.0 / 5040;
    odd = odd * x2 + 1.0 / 120;
    odd = odd * x2 - 1.0 / 6;
    const F bend = x * (x2 * odd);
    const F sin_x = x + bend;
    const F sin_rest = (x - sin_x) + bend;

    // cos x = 1 - x^2/2 + x^4 (1/4! - x^2/6! + ...); head has 26 bits, so head^2/2 is exact and 1 - head^2/2 splits
    // exactly into big and small.
    const F head = (F)((U)x & ~std::uint64_t{0x7ffffff});
    const F tail = x - head;
    const F half = head * head * 0.5;
    F even = x2 * (1.0 / 479001600) - 1.0 / 3628800;
    even = even * x2 + 1.0 / 40320;
    even = even * x2 - 1.0 / 720;
    even = even * x2 + 1.0 / 24;
    const F big = 1.0 - half;
    const F small = ((1.0 - big) - half) + (x2 * x2 * even - tail * (head + 0.5 * tail));
    const F cos_x = big + small;
    const F cos_rest = (big - cos_x) + small;

    // A rest near one half rounds to the neighboring double, whose last bit differs, when grown:
    // 0.5 - 0.5 / 1.1 = 0.0455 units, 0.5 - 0.5 / 1.05 = 0.0238.
    const U bad_sin = (U)sin_x ^ (U)(sin_x + sin_rest * 1.1);
    const U bad_cos = (U)cos_x ^ (U)(cos_x + cos_rest * 1.05);
    // The size of a positive double is the size of its word; 0 would lose its sign.
    const U size = (U)x & (~std::uint64_t{0} >> 1);
    const U bad_angle = ((std::bit_cast<std::uint64_t>(max_angle) - size) | (size - 1)) >> 63;
    const U bad = (bad_sin & 1) | (bad_cos & 1) << 1 | bad_angle | bad_angle << 1;
    store_lanes(sin_x, &sine[i]);
    store_lanes(cos_x, &cosine[i]);
    store_lanes(__builtin_convertvector(bad, typename V::U8), &unsure[i]);
  }

  /// Puts libm's values where the vector pass was unsure; N is a multiple of 8.
  void settle(std::size_t count) noexcept {
    for (std::size_t i = 0; i < count; i += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, &unsure[i], sizeof(word));
      for (; word != 0; word &= word - 1) {
        const auto bit = static_cast<std::size_t>(__builtin_ctzll(word));
        const std::size_t lane = i + bit / 8;
        if (bit % 8 == 0) {
          sine[lane] = std::sin(angle[lane]);
        } else {
          cosine[lane] = std::cos(angle[lane]);
        }
      }
    }
  }
};

}  // namespace shoal
