// Arithmetic with the bits that Python and NumPy give, where plain C++ would give others.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>

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

/// np.sum of contiguous numbers of type T: pairwise halves of blocks of up to 128, each in eight sums.
template <class T>
T numpy_sum(const T* values, std::size_t count) noexcept {
  constexpr std::size_t lanes = 8;
  constexpr std::size_t block = 128;
  T sum{0};
  if (count < lanes) {
    for (std::size_t i = 0; i < count; ++i) {
      sum += values[i];
    }
    return sum;
  }
  if (count > block) {
    const std::size_t half = count / 2 / lanes * lanes;
    return numpy_sum(values, half) + numpy_sum(values + half, count - half);
  }
  std::array<T, lanes> part;
  for (std::size_t k = 0; k < lanes; ++k) {
    part[k] = values[k];
  }
  std::size_t i = lanes;
  for (; i + lanes <= count; i += lanes) {
    for (std::size_t k = 0; k < lanes; ++k) {
      part[k] += values[i + k];
    }
  }
  sum = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
  for (; i < count; ++i) {
    sum += values[i];
  }
  return sum;
}

/// np.clip: NaN stays NaN.
inline double numpy_clip(double x, double low, double high) noexcept {
  const double above = std::isnan(x) || x > low ? x : low;
  return std::isnan(above) || above < high ? above : high;
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
