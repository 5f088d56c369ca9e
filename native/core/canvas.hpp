// A picture of an environment: rectangles of plain colors on RGB pixels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace shoal {

/// The size of a picture in pixels.
struct Frame {
  int height, width;
  [[nodiscard]] constexpr std::size_t bytes() const noexcept { return static_cast<std::size_t>(height * width) * 3; }
};

struct Color {
  std::uint8_t red, green, blue;
};

namespace colors {
inline constexpr Color night{16, 20, 28}, slate{58, 66, 82}, chalk{232, 234, 237}, red{222, 84, 76},
    orange{232, 150, 62}, yellow{232, 204, 84}, green{98, 184, 110}, blue{84, 146, 222};
}  // namespace colors

class Canvas {
 public:
  /// `pixels` [height, width, 3], from the top row down.
  Canvas(Frame frame, std::span<std::uint8_t> pixels, Color ground) noexcept : frame_(frame), pixels_(pixels) {
    box(0, 0, 1, 1, ground);
  }

  /// Fills the rectangle from (left, top) to (right, bottom), given as fractions of the picture; what lies outside is
  /// left out.
  void box(double left, double top, double right, double bottom, Color color) noexcept {
    const int x_end = place(right, frame_.width);
    const int y_end = place(bottom, frame_.height);
    for (int y = place(top, frame_.height); y < y_end; ++y) {
      for (int x = place(left, frame_.width); x < x_end; ++x) {
        const auto at = static_cast<std::size_t>(y * frame_.width + x) * 3;
        pixels_[at] = color.red;
        pixels_[at + 1] = color.green;
        pixels_[at + 2] = color.blue;
      }
    }
  }

  /// The square (column, row) of a board of `size` squares a side, less a rim.
  void square(int column, int row, int size, Color color, double rim = 0.08) noexcept {
    const double side = 1.0 / size;
    box((column + rim) * side, (row + rim) * side, (column + 1 - rim) * side, (row + 1 - rim) * side, color);
  }

 private:
  static int place(double fraction, int size) noexcept {
    return std::clamp(static_cast<int>(std::lround(fraction * size)), 0, size);
  }

  Frame frame_;
  std::span<std::uint8_t> pixels_;
};

}  // namespace shoal
