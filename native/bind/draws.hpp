// Distributions as Python hands them over.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/draw.hpp"

namespace shoal {

/// One distribution as Python gives it: the parameter, the kind, its numbers, and where and how long a range widens.
using GivenDraw = std::tuple<std::string, std::string, std::vector<double>, double, double>;

/// ValueError where nothing could be drawn, or NaN.
inline void check_numbers(const std::string& name, Draw::Kind kind, const std::vector<double>& numbers, double start,
                          double over_steps) {
  const bool normal = kind == Draw::Kind::normal;
  const auto is_finite = [](double number) { return std::isfinite(number); };
  bool good = std::isfinite(start) && over_steps >= 0.0 && std::isfinite(over_steps);
  good = good && std::ranges::all_of(numbers.begin(), normal ? numbers.begin() + 2 : numbers.end(), is_finite);
  if (good && normal) {
    // A share of the draws that is too small would be waited for without an end.
    constexpr double least = 1e-6;
    const auto below = [&numbers](double end) {
      return 0.5 * std::erfc((numbers[0] - end) / numbers[1] / std::sqrt(2.0));
    };
    good = numbers[1] > 0.0 && below(numbers[3]) - below(numbers[2]) >= least;
  } else if (good && kind != Draw::Kind::choice) {
    good = numbers[0] <= numbers[1];
  }
  if (!good) {
    throw std::invalid_argument(name +
                                ": nothing can be drawn from these numbers: they must be finite, a range's low "
                                "end not above its high end, and a normal distribution's deviation above 0, with at "
                                "least a millionth of its draws between its ends");
  }
}

inline std::vector<Draw> read_draws(const std::vector<GivenDraw>& given) {
  static constexpr std::array<std::string_view, 4> kinds{"uniform", "loguniform", "normal", "choice"};
  static constexpr std::array<std::size_t, 4> counts{2, 2, 4, 0};
  std::vector<Draw> draws;
  for (const auto& [name, kind, numbers, start, over_steps] : given) {
    const auto at = static_cast<std::size_t>(std::find(kinds.begin(), kinds.end(), kind) - kinds.begin());
    if (at == kinds.size() || numbers.empty() || (counts[at] != 0 && numbers.size() != counts[at])) {
      throw std::invalid_argument(name + ": no distribution '" + kind + "' of " + std::to_string(numbers.size()) +
                                  " numbers");
    }
    check_numbers(name, static_cast<Draw::Kind>(at), numbers, start, over_steps);
    draws.push_back({name, static_cast<Draw::Kind>(at), numbers, start, over_steps});
  }
  return draws;
}

}  // namespace shoal
