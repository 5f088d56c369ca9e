// Pixels on their way into convolutions that compute in bfloat16: normalised, colours last.
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

/// clip((pixel - mean) * inv_std, -clip, clip) of `count` bytes that stand as they are wanted.
inline void normalise_run(const std::uint8_t* pixels, std::ptrdiff_t count, const PixelMoments& moments,
                          std::ptrdiff_t place, std::uint16_t* out) noexcept {
  const float* mean = moments.mean + place;
  const float* inv_std = moments.inv_std + place;
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    float value = (static_cast<float>(pixels[i]) - mean[i]) * inv_std[i];
    value = value < -moments.clip ? -moments.clip : value;
    value = value > moments.clip ? moments.clip : value;
    out[i] = to_bfloat16(value);
  }
}

/// Places [first, first + count) of an image [colours, places], colours last.
inline void interleave(const std::uint8_t* image, const ImageShape& shape, std::ptrdiff_t first, std::ptrdiff_t count,
                       std::uint8_t* out) noexcept {
  const std::uint8_t* from = image + first;
  if (shape.colours == 4) {
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      const std::uint32_t four = static_cast<std::uint32_t>(from[i]) |
                                 (static_cast<std::uint32_t>(from[i + shape.places]) << 8U) |
                                 (static_cast<std::uint32_t>(from[i + 2 * shape.places]) << 16U) |
                                 (static_cast<std::uint32_t>(from[i + 3 * shape.places]) << 24U);
      std::memcpy(out + 4 * i, &four, sizeof four);
    }
    return;
  }
  for (std::ptrdiff_t colour = 0; colour < shape.colours; ++colour) {
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      out[i * shape.colours + colour] = from[colour * shape.places + i];
    }
  }
}

inline void normalise_pixels(const std::uint8_t* pixels, std::ptrdiff_t images, const ImageShape& shape,
                             const PixelMoments& moments, std::uint16_t* out) noexcept {
  const std::ptrdiff_t size = shape.places * shape.colours;
  constexpr std::ptrdiff_t room = 1024;
  const std::ptrdiff_t block = room / shape.colours;
  std::uint8_t mixed[room];
  for (std::ptrdiff_t image = 0; image < images; ++image, pixels += size, out += size) {
    if (shape.colours_last) {
      normalise_run(pixels, size, moments, 0, out);
      continue;
    }
    for (std::ptrdiff_t first = 0; first < shape.places; first += block) {
      const std::ptrdiff_t count = shape.places - first < block ? shape.places - first : block;
      interleave(pixels, shape, first, count, mixed);
      normalise_run(mixed, count * shape.colours, moments, first * shape.colours, out + first * shape.colours);
    }
  }
}

}  // namespace shoal::SHOAL_ISA
