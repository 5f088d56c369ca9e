// Pixels on their way into convolutions that compute in bfloat16: normalized, channels last.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "net/kernels.hpp"

namespace shoal::SHOAL_ISA {

/// The nearest bfloat16, ties to even.
inline std::uint16_t to_bfloat16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
}

/// clip((pixel - mean) * inv_std, -clip, clip) at the place `at` of an image, as bfloat16.
inline std::uint16_t normalized(std::uint8_t pixel, const PixelMoments& moments, std::ptrdiff_t at) noexcept {
  float value = (static_cast<float>(pixel) - moments.mean[at]) * moments.inv_std[at];
  value = value < -moments.clip ? -moments.clip : value;
  value = value > moments.clip ? moments.clip : value;
  return to_bfloat16(value);
}

/// `count` bytes that stand as they are wanted, from the place `first` on.
inline void normalize_run(const std::uint8_t* pixels, std::ptrdiff_t count, const PixelMoments& moments,
                          std::ptrdiff_t first, std::uint16_t* out) noexcept {
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    out[i] = normalized(pixels[i], moments, first + i);
  }
}

/// Places [first, first + count) of an image [channels, places], channels last.
inline void interleave(const std::uint8_t* image, const ImageShape& shape, std::ptrdiff_t first, std::ptrdiff_t count,
                       std::uint8_t* out) noexcept {
  const std::uint8_t* from = image + first;
  if (shape.channels == 4) {
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      const std::uint32_t four = static_cast<std::uint32_t>(from[i]) |
                                 (static_cast<std::uint32_t>(from[i + shape.places]) << 8U) |
                                 (static_cast<std::uint32_t>(from[i + 2 * shape.places]) << 16U) |
                                 (static_cast<std::uint32_t>(from[i + 3 * shape.places]) << 24U);
      std::memcpy(out + 4 * i, &four, sizeof four);
    }
    return;
  }
  for (std::ptrdiff_t channel = 0; channel < shape.channels; ++channel) {
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      out[i * shape.channels + channel] = from[channel * shape.places + i];
    }
  }
}

inline void normalize_pixels(const std::uint8_t* pixels, std::ptrdiff_t images, const ImageShape& shape,
                             const PixelMoments& moments, std::uint16_t* out) noexcept {
  const std::ptrdiff_t size = shape.places * shape.channels;
  constexpr std::ptrdiff_t room = 1024;  // channels beyond that many are taken one by one
  const std::ptrdiff_t block = shape.channels > room ? 0 : room / shape.channels;
  std::uint8_t mixed[room];
  for (std::ptrdiff_t image = 0; image < images; ++image, pixels += size, out += size) {
    if (shape.channels_last) {
      normalize_run(pixels, size, moments, 0, out);
      continue;
    }
    for (std::ptrdiff_t i = 0; block == 0 && i < size; ++i) {
      const std::ptrdiff_t place = i / shape.channels;
      out[i] = normalized(pixels[i % shape.channels * shape.places + place], moments, i);
    }
    for (std::ptrdiff_t first = 0; block > 0 && first < shape.places; first += block) {
      const std::ptrdiff_t count = shape.places - first < block ? shape.places - first : block;
      interleave(pixels, shape, first, count, mixed);
      normalize_run(mixed, count * shape.channels, moments, first * shape.channels, out + first * shape.channels);
    }
  }
}

}  // namespace shoal::SHOAL_ISA
