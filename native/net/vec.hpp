// The machine's widest float vector, and what the kernels do with it besides arithmetic.
//
// Part of net/kernels.cpp, which is built once for each instruction set. Whatever is defined here lives in a namespace
// of that set's name, so that the linker never takes one set's code for another's.
#pragma once

#ifndef SHOAL_ISA
#error "define SHOAL_ISA: the name of the instruction set that this file is built for"
#endif

#include <cstddef>
#include <cstdint>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define SHOAL_INLINE static inline __attribute__((always_inline))
#define SHOAL_INLINE_MEMBER inline __attribute__((always_inline))

namespace shoal::SHOAL_ISA {

#if defined(__AVX512F__)
constexpr std::ptrdiff_t vec_lanes = 16;
#elif defined(__AVX__)
constexpr std::ptrdiff_t vec_lanes = 8;
#else
constexpr std::ptrdiff_t vec_lanes = 4;
#endif

using Vec = float __attribute__((vector_size(vec_lanes * 4)));
using Int = std::int32_t __attribute__((vector_size(vec_lanes * 4)));
using LooseVec = float __attribute__((vector_size(vec_lanes * 4), aligned(4), may_alias));
using LooseInt = std::int32_t __attribute__((vector_size(vec_lanes * 4), aligned(4), may_alias));

SHOAL_INLINE Vec load(const float* from) noexcept { return *reinterpret_cast<const LooseVec*>(from); }
SHOAL_INLINE Int load(const std::int32_t* from) noexcept { return *reinterpret_cast<const LooseInt*>(from); }
SHOAL_INLINE void store(float* to, Vec x) noexcept { *reinterpret_cast<LooseVec*>(to) = x; }
SHOAL_INLINE void store(std::int32_t* to, Int x) noexcept { *reinterpret_cast<LooseInt*>(to) = x; }
SHOAL_INLINE Vec splat(float x) noexcept { return x - Vec{}; }
SHOAL_INLINE Int splat(std::int32_t x) noexcept { return x - Int{}; }

#if defined(__AVX512F__)
constexpr __mmask16 all_lanes = 0xFFFF;  // the unmasked intrinsics of g++ 12 warn of their own undefined operand
#endif

/// a where it is below b, b elsewhere: also where a is no number.
SHOAL_INLINE Vec lower_or_second(Vec a, Vec b) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_min_ps(all_lanes, a, b);
#elif defined(__AVX__)
  return _mm256_min_ps(a, b);
#elif defined(__x86_64__)
  return _mm_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

/// a where it is above b, b elsewhere: also where a is no number.
SHOAL_INLINE Vec higher_or_second(Vec a, Vec b) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(all_lanes, a, b);
#elif defined(__AVX__)
  return _mm256_max_ps(a, b);
#elif defined(__x86_64__)
  return _mm_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

/// low where x is below it, high where x is above it, x elsewhere: NaN stays NaN.
SHOAL_INLINE Vec clamp(Vec x, float low, float high) noexcept {
  return higher_or_second(splat(low), lower_or_second(splat(high), x));
}

SHOAL_INLINE Vec larger(Vec a, Vec b) noexcept { return higher_or_second(b, a); }

/// 1 / x within an ulp or so, for x far from 0 and infinity.
SHOAL_INLINE Vec reciprocal(Vec x) noexcept {
#if defined(__AVX512F__)
  const Vec guess = _mm512_maskz_rcp14_ps(all_lanes, x);
  return guess + guess * (1.0F - x * guess);
#else
  return 1.0F / x;
#endif
}

SHOAL_INLINE Vec square_root(Vec x) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_sqrt_ps(all_lanes, x);
#elif defined(__AVX__)
  return _mm256_sqrt_ps(x);
#elif defined(__x86_64__)
  return _mm_sqrt_ps(x);
#elif defined(__aarch64__)
  return vsqrtq_f32(x);
#else
  for (int i = 0; i < vec_lanes; ++i) {
    x[i] = __builtin_sqrtf(x[i]);
  }
  return x;
#endif
}

/// Lanes without bit H from a, the others from b's lanes H before: one half of a butterfly.
template <int H, int... I>
SHOAL_INLINE Vec mix_low(Vec a, Vec b, std::integer_sequence<int, I...> /*lanes*/) noexcept {
  return __builtin_shufflevector(a, b, ((I & H) == 0 ? I : vec_lanes + I - H)...);
}

/// The other half: lanes without bit H from a's lanes H behind, the others from b.
template <int H, int... I>
SHOAL_INLINE Vec mix_high(Vec a, Vec b, std::integer_sequence<int, I...> /*lanes*/) noexcept {
  return __builtin_shufflevector(a, b, ((I & H) == 0 ? I + H : vec_lanes + I)...);
}

using LaneIndex = std::make_integer_sequence<int, vec_lanes>;

/// Transposes a square of vec_lanes vectors in place, butterflies of distance H first.
template <int H = 1>
SHOAL_INLINE void transpose_square(Vec* rows) noexcept {
  if constexpr (H < vec_lanes) {
#pragma GCC unroll 16
    for (int r = 0; r < vec_lanes; ++r) {
      if ((r & H) == 0) {
        const Vec a = rows[r];
        const Vec b = rows[r + H];
        rows[r] = mix_low<H>(a, b, LaneIndex{});
        rows[r + H] = mix_high<H>(a, b, LaneIndex{});
      }
    }
    transpose_square<2 * H>(rows);
  }
}

/// The sums of vec_lanes vectors, the i-th vector's in lane i; neighbors are added first.
template <int H = 1>
SHOAL_INLINE Vec lane_sums(Vec* rows) noexcept {
  if constexpr (H < vec_lanes) {
#pragma GCC unroll 16
    for (int r = 0; r < vec_lanes; r += 2 * H) {
      rows[r] = mix_low<H>(rows[r], rows[r + H], LaneIndex{}) + mix_high<H>(rows[r], rows[r + H], LaneIndex{});
    }
    return lane_sums<2 * H>(rows);
  } else {
    return rows[0];
  }
}

/// The sum of all lanes, in lane order.
SHOAL_INLINE double lane_total(Vec x) noexcept {
  double sum = 0.0;
  for (int i = 0; i < vec_lanes; ++i) {
    sum += static_cast<double>(x[i]);
  }
  return sum;
}

}  // namespace shoal::SHOAL_ISA
