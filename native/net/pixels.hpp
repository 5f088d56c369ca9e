// Pixels on their way into convolutions: bytes as float32 or bfloat16, normalized or not, channels last.
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

/// A pixel as it is: whole numbers up to 255 are exact in bfloat16 too.
struct Plain {
  float operator()(std::uint8_t pixel, std::ptrdiff_t /*at*/) const noexcept { return static_cast<float>(pixel); }
};

/// clip((pixel - mean) * inv_std, -clip, clip) at the place `at` of an image.
struct Normalized {
  PixelMoments moments;

  float operator()(std::uint8_t pixel, std::ptrdiff_t at) const noexcept {
    float value = (static_cast<float>(pixel) - moments.mean[at]) * moments.inv_std[at];
    value = value < -moments.clip ? -moments.clip : value;
    return value > moments.clip ? moments.clip : value;
  }
};

inline void store(float value, float* out) noexcept { *out = value; }

inline void store(float value, std::uint16_t* out) noexcept { *out = to_bfloat16(value); }

/// `count` bytes that stand as they are wanted, from the place `first` on.
template <class Number, class Out>
void convert_run(const std::uint8_t* pixels, std::ptrdiff_t count, const Number& number, std::ptrdiff_t first,
                 Out* out) noexcept {
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    store(number(pixels[i], first + i), out + i);
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

template <class Number, class Out>
void convert_pixels(const std::uint8_t* pixels, std::ptrdiff_t images, const ImageShape& shape, const Number& number,
                    Out* out) noexcept {
  const std::ptrdiff_t size = shape.places * shape.channels;
  constexpr std::ptrdiff_t room = 1024;  // channels beyond that many are taken one by one
  const std::ptrdiff_t block = shape.channels > room ? 0 : room / shape.channels;
  std::uint8_t mixed[room];
  for (std::ptrdiff_t image = 0; image < images; ++image, pixels += size, out += size) {
    if (shape.channels_last) {
      convert_run(pixels, size, number, 0, out);
      continue;
    }
    for (std::ptrdiff_t i = 0; block == 0 && i < size; ++i) {
      const std::ptrdiff_t place = i / shape.channels;
      store(number(pixels[i % shape.channels * shape.places + place], i), out + i);
    }
    for (std::ptrdiff_t first = 0; block > 0 && first < shape.places; first += block) {
      const std::ptrdiff_t count = shape.places - first < block ? shape.places - first : block;
      interleave(pixels, shape, first, count, mixed);
      convert_run(mixed, count * shape.channels, number, first * shape.channels, out + first * shape.channels);
    }
  }
}

inline void pixels_last(const std::uint8_t* pixels, std::ptrdiff_t images, const ImageShape& shape,
                        const PixelMoments* moments, const PixelsOut& out) noexcept {
  if (moments == nullptr) {
    out.half != nullptr ? convert_pixels(pixels, images, shape, Plain{}, out.half)
                        : convert_pixels(pixels, images, shape, Plain{}, out.single);
    return;
  }
  const Normalized number{*moments};
  out.half != nullptr ? convert_pixels(pixels, images, shape, number, out.half)
                      : convert_pixels(pixels, images, shape, number, out.single);
}

}  // namespace shoal::SHOAL_ISA
