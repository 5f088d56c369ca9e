// Parameters that every episode draws anew. The arithmetic is that of `shoal.envs.randomise`, bit for bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "math/pcg64.hpp"

namespace shoal {

/// A parameter's distribution.
struct Draw {
  enum class Kind : std::uint8_t { uniform, loguniform, normal, choice };

  std::string name;
  Kind kind;
  /// uniform: low, high; loguniform: their logarithms; normal: mean, std, low, high; choice: the values.
  std::vector<double> numbers;
  double start = 0.0;       ///< where a range begins that widens, in the terms of `numbers`
  double over_steps = 0.0;  ///< steps after which it is whole; 0: from the first

  /// One value, after `steps` steps of the row.
  [[nodiscard]] double operator()(Pcg64& rng, std::int64_t steps) const noexcept {
    switch (kind) {
      case Kind::uniform:
        return between(rng, steps);
      case Kind::loguniform:
        return std::exp(between(rng, steps));
      case Kind::normal:
        return normal(rng);
      default:
        return numbers[static_cast<std::size_t>(rng.next_double() * static_cast<double>(numbers.size()))];
    }
  }

 private:
  [[nodiscard]] double between(Pcg64& rng, std::int64_t steps) const noexcept {
    double low = numbers[0];
    double high = numbers[1];
    if (static_cast<double>(steps) < over_steps) {
      const double share = static_cast<double>(steps) / over_steps;
      low = start + (low - start) * share;
      high = start + (high - start) * share;
    }
    return low + (high - low) * rng.next_double();
  }

  [[nodiscard]] double normal(Pcg64& rng) const noexcept {
    constexpr double pi = 3.141592653589793;
    for (;;) {
      const double radius = std::sqrt(-2.0 * std::log(1.0 - rng.next_double()));
      const double value = numbers[0] + numbers[1] * (radius * std::cos(2.0 * pi * rng.next_double()));
      if (numbers[2] <= value && value <= numbers[3]) {
        return value;
      }
    }
  }
};

/// A row draws from Pcg64(its seed ^ draw_seed_mask), never from the environment's generator.
constexpr std::uint64_t draw_seed_mask = 0x53686F616C447277;

}  // namespace shoal
