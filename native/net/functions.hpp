// exp, log and tanh of a vector within a few units in the last place; the coefficients are minimax fits made for shoal.
#pragma once

#include <numbers>

#include "net/vec.hpp"

namespace shoal::SHOAL_ISA {

constexpr float ln2_high = 0.6875F;  // few bits: exact times a small integer
constexpr float ln2_low = 0.005647180559945309F;

/// e^x, x taken as within [-87, 88]; NaN stays NaN. exp(r) = 1 + r + r^2 p(r) on |r| <= ln 2 / 2.
SHOAL_INLINE Vec exponential(Vec x) noexcept {
  constexpr float to_integer = 0x1.8p23F;  // adding it leaves the nearest integer in the low bits
  x = clamp(x, -87.0F, 88.0F);
  const Vec shifted = x * std::numbers::log2e_v<float> + to_integer;
  const Vec n = shifted - to_integer;
  const Vec r = (x - n * ln2_high) - n * ln2_low;
  Vec p = 0.0013813144760206342F * r + 0.008369418792426586F;
  p = p * r + 0.04166845604777336F;
  p = p * r + 0.16666515171527863F;
  p = p * r + 0.4999999403953552F;
  p = p * (r * r) + r + 1.0F;
  const Int power = (reinterpret_cast<Int>(shifted) - 0x4B400000 + 127) << 23;
  return p * reinterpret_cast<Vec>(power);
}

/// ln x of a normal positive number; infinity and NaN give NaN. log(1 + f) = f - f^2 / 2 + f^3 p(f).
SHOAL_INLINE Vec logarithm(Vec x) noexcept {
  const Int bits = reinterpret_cast<Int>(x);
  const Int power = (bits - 0x3F3504F3) >> 23;  // x = 2^power * m with m in [sqrt(1/2), sqrt(2))
  const Vec f = reinterpret_cast<Vec>(bits - (power << 23)) - 1.0F;
  const Vec n = __builtin_convertvector(power, Vec);
  Vec p = -0.07634492963552475F * f + 0.12761574983596802F;
  p = p * f - 0.13160182535648346F;
  p = p * f + 0.14201758801937103F;
  p = p * f - 0.16623356938362122F;
  p = p * f + 0.20001226663589478F;
  p = p * f - 0.2500081956386566F;
  p = p * f + 0.3333333134651184F;
  const Vec square = f * f;
  const Vec low = n * ln2_low + square * (p * f - 0.5F);
  return n * ln2_high + (f + low) + (x - x);
}

/// tanh x = x P(x^2) / Q(x^2), constant beyond |x| = 8 where tanh differs from 1 by less than 3e-7; NaN stays NaN.
SHOAL_INLINE Vec hyperbolic_tangent(Vec x) noexcept {
  x = clamp(x, -8.0F, 8.0F);
  const Vec y = x * x;
  Vec p = 1.5230471106519872e-08F * y + 2.1894698875257745e-05F;
  Vec q = 8.522467851435067e-07F * y + 0.0003411295765545219F;
  p = p * y + 0.0035716001875698566F;
  q = q * y + 0.026164451614022255F;
  p = p * y + 0.13444499671459198F;
  q = q * y + 0.4677782654762268F;
  p = p * y + 1.0F;
  q = q * y + 1.0F;
  return x * p * reciprocal(q);
}

}  // namespace shoal::SHOAL_ISA
