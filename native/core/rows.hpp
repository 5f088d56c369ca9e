// What a pool of environment rows offers to the rest of the house, whichever environment it holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/canvas.hpp"

namespace shoal {

/// Where a block of `count` rows writes one step. Element 0 of every pointer belongs to the first row of the block.
/// `final_obs`, `episode_return`, `episode_length` and `drawn` are written only for rows whose episode ended in this
/// step.
struct StepOut {
  float* obs;                    ///< [count, obs_size]; at an episode's end already the next episode's first
  double* reward;                ///< [count]
  std::uint8_t* terminated;      ///< [count] 0 or 1
  std::uint8_t* truncated;       ///< [count] 0 or 1
  float* final_obs;              ///< [count, obs_size]
  double* episode_return;        ///< [count]
  std::int64_t* episode_length;  ///< [count]
  double* drawn;                 ///< [count, num_drawn] what the episode's start drew; null where nothing is drawn
};

/// Rows of one environment, stepped in place. Calls on disjoint rows may run on different threads at once.
/// Virtual per block of rows, never per row.
class Rows {
 public:
  Rows() = default;
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;
  virtual ~Rows() = default;

  [[nodiscard]] virtual int num_rows() const noexcept = 0;
  /// Rows of one environment: its agents, side by side. Blocks of rows hold whole environments.
  [[nodiscard]] virtual int num_agents() const noexcept { return 1; }
  [[nodiscard]] virtual int obs_size() const noexcept = 0;
  /// Elements of one action: 1 for a discrete one (int64), the Box's size otherwise (float32).
  [[nodiscard]] virtual int action_size() const noexcept = 0;
  [[nodiscard]] virtual bool discrete() const noexcept = 0;
  /// Parameters that every episode draws anew.
  [[nodiscard]] virtual int num_drawn() const noexcept = 0;
  /// Rows that are worth handing over to another thread, at least; a thread's part is a multiple of it.
  [[nodiscard]] virtual int grain() const noexcept = 0;
  /// Seeds the generator of row first+i with seeds[i] as Gymnasium's reset(seed=...) does, and resets the row.
  virtual void reset_rows(int first, std::span<const std::uint64_t> seeds, float* obs) noexcept = 0;
  /// Begins row's next episode with its own generator, as reset() without a seed does.
  virtual void begin_row(int row, float* obs) noexcept = 0;
  /// The first row (of the pool) whose action is out of range or NaN; -1 when all are good.
  /// `actions` is int64 [count] or float32 [count, action_size].
  [[nodiscard]] virtual int bad_action(int first, int count, const void* actions) const noexcept = 0;
  virtual void step_rows(int first, int count, const void* actions, const StepOut& out) noexcept = 0;
  /// Bytes that hold any one row whole at present: environment, generator, episode counters.
  [[nodiscard]] virtual std::size_t row_bytes() const noexcept = 0;
  /// Whether rows saved with so many bytes each can be of this environment.
  [[nodiscard]] virtual bool fits(std::size_t row_bytes) const noexcept = 0;
  /// What the bytes of a saved row mean, in words: rows that were saved under other words are not these.
  [[nodiscard]] virtual std::string layout() const = 0;
  /// Rows of `row_bytes()` bytes each.
  virtual void save_rows(int first, int count, std::byte* to) const noexcept = 0;
  /// Returns the rows that could not be brought back: they have ended as truncated in `out`, and begun anew.
  /// std::invalid_argument where the bytes cannot be rows: a file may hold anything.
  virtual std::vector<int> load_rows(int first, int count, const std::byte* from, std::size_t row_bytes,
                                     const StepOut& out) = 0;
  /// The size of a row's picture; 0 x 0 where there is none.
  [[nodiscard]] virtual Frame frame() const noexcept { return {0, 0}; }
  /// Writes frame().bytes() of RGB.
  virtual void render_row(int /*row*/, std::span<std::uint8_t> /*rgb*/) const noexcept {}
};

}  // namespace shoal
