// shoal/Snake-v0: a snake eats, grows, and dies of walls and of itself; one point a bite.
//
// It starves after 72 steps without a bite, twice as many as there are cells. It begins one cell long on a board of 6 x
// 6 and has won when it fills the board. Its tail leaves a cell in the step in which its head may come there. Food
// appears in a free cell, each as likely.
#pragma once

#include <algorithm>
#include <bit>

#include "core/env.hpp"
#include "math/splitmix.hpp"

namespace shoal {

struct Snake {
  static constexpr int side = 6, cells = side * side;

  static constexpr std::string_view id = "shoal/Snake-v0";
  /// For each cell: in how many steps the snake will have left it (of 36), whether the head is there, whether food is.
  /// Then for each move: whether it kills, which share of the free cells could be reached after it, and whether the
  /// tail could. Then how near it is to starving, and how far food is to the right and down (0 to 1; none: a half).
  static constexpr int obs_size = 3 * cells + 15;
  static constexpr Box<obs_size> observation_space = Box<obs_size>::between(0, 1);
  static constexpr Discrete action_space{4};  // up, right, down, left
  /// A snake of length n that follows a cycle through all cells meets its food after at most 36 - n steps: 630 in all.
  static constexpr int max_episode_steps = cells * (cells - 1) / 2;
  static constexpr std::optional<double> reward_threshold = 0.9 * (cells - 1);
  static constexpr Frame frame{96, 96};

  struct Params {
    double size = side;           ///< cells of a side of the board; the rest is shown as cells that are never left
    double patience = 2 * cells;  ///< steps without a bite after which it starves
    static constexpr auto fields() {
      return std::array{Field{"size", &Params::size, 2, side, true},
                        Field{"patience", &Params::patience, 1, 1000, true}};
    }
  };

  std::uint64_t board;                     ///< the cells that belong to the board, a bit each
  std::uint64_t body;                      ///< those that the snake is in
  std::array<std::uint8_t, cells> places;  ///< the snake's cells in a ring, the tail at `tail`
  std::uint8_t tail, length, head, food, size;
  std::int16_t hunger, patience;  ///< steps since the last bite, and how many it endures
  SplitMix64 draws;

  void reset(const Params& params, Pcg64& rng) noexcept {
    draws = {rng.next_u64()};
    size = static_cast<std::uint8_t>(params.size);
    patience = static_cast<std::int16_t>(params.patience);
    hunger = 0;
    board = board_of(size);
    body = 0;
    places.fill(0);
    tail = length = 0;
    food = cells;
    enter(free_cell());
    food = free_cell();
  }

  Outcome step(const Params& /*params*/, std::int64_t action) noexcept {
    const std::uint8_t next = ahead(static_cast<int>(action));
    if (next == cells) {
      return {0, true};
    }
    const bool eats = next == food;
    if (!eats) {
      leave_tail();
    }
    if ((body >> next & 1) != 0) {
      return {0, true};
    }
    enter(next);
    hunger = static_cast<std::int16_t>(eats ? 0 : hunger + 1);
    if (!eats) {
      return {0, hunger == patience};
    }
    const bool filled = body == board;
    food = filled ? static_cast<std::uint8_t>(cells) : free_cell();
    return {1, filled};
  }

  void observe(std::span<float, obs_size> obs) const noexcept {
    std::fill(obs.begin(), obs.end(), 0.0F);
    if (size < side) {
      for (std::size_t cell = 0; cell < cells; ++cell) {
        obs[cell] = static_cast<float>(~board >> cell & 1);
      }
    }
    for (std::size_t i = 0, at = tail; i < length; ++i) {
      obs[places[at]] = static_cast<float>(i + 1) / cells;
      at = at + 1 == cells ? 0 : at + 1;
    }
    obs[cells + head] = 1;
    if (food < cells) {
      obs[2 * cells + food] = 1;
    }
    for (int move = 0; move < 4; ++move) {
      foresee(move, obs.subspan(static_cast<std::size_t>(3 * cells + 3 * move), 3));
    }
    obs[3 * cells + 12] = static_cast<float>(hunger) / static_cast<float>(patience);
    const int goal = food < cells ? food : head;
    obs[3 * cells + 13] = static_cast<float>(goal % side - head % side + side - 1) / (2 * side - 2);
    obs[3 * cells + 14] = static_cast<float>(goal / side - head / side + side - 1) / (2 * side - 2);
  }

  [[nodiscard]] bool valid(const Params& params) const noexcept {
    if (size != params.size || patience != params.patience || board != board_of(size) || hunger < 0 ||
        hunger >= patience || tail >= cells || length < 1 || length > cells || food >= cells) {
      return false;
    }
    std::uint64_t seen = 0;
    for (std::size_t i = 0, at = tail; i < length; ++i) {
      const std::uint8_t cell = places[at];
      if (cell >= cells || (seen >> cell & 1) != 0) {
        return false;
      }
      seen |= std::uint64_t{1} << cell;
      at = at + 1 == cells ? 0 : at + 1;
    }
    return seen == body && (body & ~board) == 0 && ((board & ~body) >> food & 1) != 0 &&
           head == places[(tail + length - 1U) % cells];
  }

  void render(const Params& /*params*/, std::span<std::uint8_t> rgb) const noexcept {
    Canvas canvas(frame, rgb, colors::night);
    for (int cell = 0; cell < cells; ++cell) {
      const bool outside = (board >> cell & 1) == 0;
      const bool snake = (body >> cell & 1) != 0;
      const Color paint = cell == head ? colors::yellow : (snake ? colors::green : colors::slate);
      if (!outside) {
        canvas.square(cell % side, cell / side, side, cell == food ? colors::red : paint);
      }
    }
  }

 private:
  static std::uint64_t board_of(int size) noexcept {
    std::uint64_t board = 0;
    for (int row = 0; row < size; ++row) {
      board |= ((std::uint64_t{1} << size) - 1) << (row * side);
    }
    return board;
  }

  /// The cell that a move leads to; `cells` where that is a wall.
  [[nodiscard]] std::uint8_t ahead(int move) const noexcept {
    constexpr int across[4] = {0, 1, 0, -1}, down[4] = {-1, 0, 1, 0};
    const int column = head % side + across[move];
    const int row = head / side + down[move];
    const bool inside = column >= 0 && column < size && row >= 0 && row < size;
    return static_cast<std::uint8_t>(inside ? row * side + column : cells);
  }

  void foresee(int move, std::span<float> seen) const noexcept {
    const std::uint8_t next = ahead(move);
    const bool eats = next == food;
    const std::uint64_t stays = eats ? body : body & ~(std::uint64_t{1} << places[tail]);
    if (next == cells || (stays >> next & 1) != 0) {
      seen[0] = 1;
      return;
    }
    const std::uint64_t place = std::uint64_t{1} << next;
    const std::uint64_t open = board & ~stays & ~place;
    std::uint64_t near = place;
    for (std::uint64_t grown = spread(near) & (open | place); grown != near; grown = spread(near) & (open | place)) {
      near = grown;
    }
    const int free = std::popcount(open);
    seen[1] = free == 0 ? 1.0F : static_cast<float>(std::popcount(near) - 1) / static_cast<float>(free);
    const int end = eats ? tail : (tail + 1) % cells;
    const std::uint8_t last = eats || length > 1 ? places[static_cast<std::size_t>(end)] : next;
    seen[2] = (spread(near) >> last & 1) != 0 ? 1.0F : 0.0F;
  }

  /// These cells and those beside them.
  static constexpr std::uint64_t spread(std::uint64_t set) noexcept {
    constexpr std::uint64_t first_column = 0b000001'000001'000001'000001'000001'000001;
    constexpr std::uint64_t last_column = first_column << (side - 1);
    return set | set << side | set >> side | (set & ~first_column) >> 1 | (set & ~last_column) << 1;
  }

  void enter(std::uint8_t cell) noexcept {
    places[(tail + length) % cells] = cell;
    ++length;
    body |= std::uint64_t{1} << cell;
    head = cell;
  }

  void leave_tail() noexcept {
    body &= ~(std::uint64_t{1} << places[tail]);
    tail = static_cast<std::uint8_t>(tail + 1 == cells ? 0 : tail + 1);
    --length;
  }

  std::uint8_t free_cell() noexcept {
    std::uint64_t open = board & ~body;
    for (int skip = draws.below(std::popcount(open)); skip > 0; --skip) {
      open &= open - 1;
    }
    return static_cast<std::uint8_t>(std::countr_zero(open));
  }
};

}  // namespace shoal
