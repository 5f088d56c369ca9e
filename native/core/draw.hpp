// Parameters that every episode draws anew. The arithmetic is that of `shoal.envs.randomization`, bit for bit.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
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

  /// The values that bound what may be drawn; all of them for a choice.
  [[nodiscard]] std::vector<double> ends() const {
    switch (kind) {
      case Kind::loguniform:
        return {std::exp(numbers[0]), std::exp(numbers[1])};
      case Kind::normal:
        return {numbers[2], numbers[3]};
      default:
        return numbers;
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

/// The parameter `name` of E; std::invalid_argument, with those there are, where there is none.
template <class E>
auto find_field(std::string_view name) {
  std::string known = "max_episode_steps";
  for (const auto& field : E::Params::fields()) {
    if (field.name == name) {
      return field;
    }
    known.append(", ").append(field.name);
  }
  throw std::invalid_argument(std::string(E::id) + " has no parameter '" + std::string(name) + "'; it has " + known);
}

/// The parameters of each row of E where episodes draw some of them; no memory where none does.
template <class E>
class Drawn {
 public:
  using Params = typename E::Params;
  /// The parameters of a row's episode, what draws them, and the row's steps before this episode.
  struct Row {
    Params params;
    Pcg64 rng;
    std::int64_t steps;
  };

  Drawn(const std::vector<Draw>& draws, std::size_t num_rows) : draws_(draws), rows_(draws.empty() ? 0 : num_rows) {
    for (const Draw& draw : draws_) {
      const auto field = find_field<E>(draw.name);
      for (const double end : draw.ends()) {
        field.check(end);
      }
      if (field.whole && draw.kind != Draw::Kind::choice) {
        throw std::invalid_argument(draw.name + " is a whole number: draw it by choice");
      }
      members_.push_back(field.member);
    }
  }

  [[nodiscard]] bool none() const noexcept { return rows_.empty(); }
  [[nodiscard]] std::size_t count() const noexcept { return draws_.size(); }
  [[nodiscard]] std::size_t row_bytes() const noexcept { return none() ? 0 : sizeof(Row); }
  [[nodiscard]] Row& operator[](std::size_t row) noexcept { return rows_[row]; }
  [[nodiscard]] const Row& operator[](std::size_t row) const noexcept { return rows_[row]; }

  /// What is drawn, in words.
  [[nodiscard]] std::string layout() const {
    std::string text;
    for (const Draw& draw : draws_) {
      text += (text.empty() ? "; drawn: " : ", ") + draw.name;
    }
    return text;
  }

  void seed(std::size_t row, const Params& params, std::uint64_t seed) noexcept {
    if (!none()) {
      rows_[row] = {params, Pcg64(seed ^ draw_seed_mask), 0};
    }
  }
  /// Draws the parameters of the row's next episode; the one before had `length` steps.
  void draw(std::size_t row, std::int64_t length) noexcept {
    for (std::size_t i = 0; i < count(); ++i) {
      Row& drawn = rows_[row];
      drawn.steps += i == 0 ? length : 0;
      drawn.params.*members_[i] = draws_[i](drawn.rng, drawn.steps);
    }
  }
  /// The drawn values of the row's episode, to out[0], ..., out[count() - 1].
  void write(std::size_t row, double* out) const noexcept {
    for (std::size_t i = 0; i < count() && out != nullptr; ++i) {
      out[i] = rows_[row].params.*members_[i];
    }
  }
  void save(std::size_t row, std::byte* to) const noexcept {
    if (!none()) {
      std::memcpy(to, &rows_[row], sizeof(Row));
    }
  }
  /// Whether the bytes that `save` wrote can be a row's.
  [[nodiscard]] bool can_load(const std::byte* from) const noexcept {
    if (none()) {
      return true;
    }
    const Row row = read(from);
    for (const auto& field : Params::fields()) {
      if (!field.holds(row.params.*field.member)) {
        return false;
      }
    }
    if constexpr (requires { row.params.refusal(); }) {
      if (!row.params.refusal().empty()) {
        return false;
      }
    }
    return row.rng.valid() && row.steps >= 0;
  }
  [[nodiscard]] static Row read(const std::byte* from) noexcept {
    Row row;
    std::memcpy(&row, from, sizeof(row));
    return row;
  }
  void load(std::size_t row, const std::byte* from) noexcept {
    if (!none()) {
      std::memcpy(&rows_[row], from, sizeof(Row));
    }
  }

 private:
  std::vector<Draw> draws_;
  std::vector<double Params::*> members_;
  std::vector<Row> rows_;
};

}  // namespace shoal
