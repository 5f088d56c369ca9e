// Arithmetic with the bits that Python and NumPy give, where plain C++ would give others.
#pragma once

#include <cmath>

namespace shoal {

/// x ** 2 of Python floats and NumPy scalars: libm's pow, which is not x * x in about one of 1,000 cases. The exponent
/// hides from the compiler, which would make a product of it.
inline double python_square(double x) noexcept {
  const volatile double exponent = 2.0;
  return std::pow(x, exponent);
}
inline float python_square(float x) noexcept {
  const volatile float exponent = 2.0F;
  return std::pow(x, exponent);
}

/// Python's a % b for b > 0: in [0, b).
inline double python_mod(double a, double b) noexcept {
  const double rest = std::fmod(a, b);
  return rest < 0 ? rest + b : std::fabs(rest);
}

/// NumPy's float32 sine for |x| < pi/4: its vector loop is an odd minimax polynomial in fused steps, not libm's sinf.
inline float numpy_sin(float x) noexcept {
  const float square = x * x;
  float sum = 0x1.7d3bbcp-19F;
  sum = std::fma(sum, square, -0x1.a06bbap-13F);
  sum = std::fma(sum, square, 0x1.11119ap-7F);
  sum = std::fma(sum, square, -0x1.555556p-3F);
  return std::fma(sum * square, x, x);
}

/// NumPy's float32 cosine for |x| < pi/4.
inline float numpy_cos(float x) noexcept {
  const float square = x * x;
  float sum = 0x1.98e616p-16F;
  sum = std::fma(sum, square, -0x1.6c06dcp-10F);
  sum = std::fma(sum, square, 0x1.55553cp-5F);
  sum = std::fma(sum, square, -0.5F);
  return std::fma(sum, square, 1.0F);
}

}  // namespace shoal
