// Distributions as Python hands them over.
#pragma once

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/draw.hpp"

namespace shoal {

/// One distribution as Python gives it: the parameter, the kind, its numbers, and where and how long a range widens.
using GivenDraw = std::tuple<std::string, std::string, std::vector<double>, double, double>;

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
    draws.push_back({name, static_cast<Draw::Kind>(at), numbers, start, over_steps});
  }
  return draws;
}

}  // namespace shoal
