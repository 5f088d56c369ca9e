// What stands between the policy and the environment: sticky actions, scaled and clipped rewards, stacked observations.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/rows.hpp"
#include "math/philox.hpp"

namespace shoal {

struct Preprocessing {
  /// std::invalid_argument where it cannot be done to observations of `obs_size` numbers.
  void check(int obs_size) const {
    if (frame_stack < 1 || frame_stack > std::numeric_limits<int>::max() / std::max(obs_size, 1)) {
      throw std::invalid_argument("frame_stack must be between 1 and " +
                                  std::to_string(std::numeric_limits<int>::max() / std::max(obs_size, 1)) + ", not " +
                                  std::to_string(frame_stack));
    }
    if (!(sticky_actions >= 0.0 && sticky_actions <= 1.0)) {
      throw std::invalid_argument("sticky_actions must be between 0 and 1, not " + std::to_string(sticky_actions));
    }
    if (!std::isfinite(reward_scale) || !(reward_low <= reward_high)) {
      throw std::invalid_argument("reward_scale must be finite and reward_low not above reward_high, not " +
                                  std::to_string(reward_scale) + ", " + std::to_string(reward_low) + " and " +
                                  std::to_string(reward_high));
    }
  }

  int frame_stack = 1;          ///< observations that the policy sees at once, the oldest first
  double sticky_actions = 0.0;  ///< probability that the previous action is done again
  double reward_scale = 1.0;
  double reward_low = -std::numeric_limits<double>::infinity();
  double reward_high = std::numeric_limits<double>::infinity();
  bool reward_sign = false;  ///< rewards become -1, 0 or 1

  [[nodiscard]] bool plain() const noexcept {
    return frame_stack == 1 && sticky_actions == 0.0 && reward_scale == 1.0 && !reward_sign && std::isinf(reward_low) &&
           std::isinf(reward_high);
  }
  /// A reward that is not finite stays what it is, for the checks to find.
  [[nodiscard]] double reward_of(double reward) const noexcept {
    if (!std::isfinite(reward)) {
      return reward;
    }
    const double scaled = reward * reward_scale;
    if (reward_sign) {
      return scaled > 0.0 ? 1.0 : (scaled < 0.0 ? -1.0 : 0.0);
    }
    return std::min(std::max(scaled, reward_low), reward_high);
  }
};

/// The stream of Philox that decides which actions stick; acting draws from the streams 0 and 1.
constexpr std::uint32_t sticky_stream = 2;

/// Whether the row that was seeded with `seed` sticks to its previous action in its step number `step` since then.
inline bool sticks(std::uint64_t seed, std::int64_t step, double probability) noexcept {
  return static_cast<double>(philox_to_uniform(philox_word(seed, sticky_stream, 0, step))) < probability;
}

/// Rows with preprocessing around them. Returns and lengths are those of the rows within.
class PreprocessedRows final : public Rows {
 public:
  /// `preprocessing`: one that `check` lets pass.
  PreprocessedRows(std::unique_ptr<Rows> rows, const Preprocessing& preprocessing)
      : rows_(std::move(rows)),
        preprocessing_(preprocessing),
        size_(static_cast<std::size_t>(rows_->obs_size())),
        stack_size_(size_ * static_cast<std::size_t>(preprocessing.frame_stack)),
        action_bytes_(static_cast<std::size_t>(rows_->action_size()) *
                      (rows_->discrete() ? sizeof(std::int64_t) : sizeof(float))) {
    const auto count = static_cast<std::size_t>(rows_->num_rows());
    sticking_.resize(count);
    actions_.resize(count * action_bytes_);
    if (preprocessing.frame_stack > 1) {
      frames_.resize(count * size_);
      final_frames_.resize(count * size_);
      stacks_.resize(count * stack_size_);
    }
  }

  [[nodiscard]] int num_rows() const noexcept override { return rows_->num_rows(); }
  [[nodiscard]] int obs_size() const noexcept override { return static_cast<int>(stack_size_); }
  [[nodiscard]] int action_size() const noexcept override { return rows_->action_size(); }
  [[nodiscard]] bool discrete() const noexcept override { return rows_->discrete(); }
  [[nodiscard]] int num_drawn() const noexcept override { return rows_->num_drawn(); }
  [[nodiscard]] int grain() const noexcept override { return rows_->grain(); }
  [[nodiscard]] int num_agents() const noexcept override { return rows_->num_agents(); }
  [[nodiscard]] Frame frame() const noexcept override { return rows_->frame(); }
  void render_row(int row, std::span<std::uint8_t> rgb) const noexcept override { rows_->render_row(row, rgb); }

  void reset_rows(int first, std::span<const std::uint64_t> seeds, float* obs) noexcept override {
    const auto from = static_cast<std::size_t>(first);
    for (std::size_t i = 0; i < seeds.size(); ++i) {
      sticking_[from + i] = {seeds[i], 0, 0};
    }
    rows_->reset_rows(first, seeds, stacking() ? frames_.data() + from * size_ : obs);
    if (stacking()) {
      for (std::size_t i = 0; i < seeds.size(); ++i) {
        fill(from + i);
      }
      std::copy_n(stacks_.data() + from * stack_size_, seeds.size() * stack_size_, obs);
    }
  }

  void begin_row(int row, float* obs) noexcept override {
    const auto at = static_cast<std::size_t>(row);
    rows_->begin_row(row, stacking() ? frames_.data() + at * size_ : obs);
    sticking_[at].begun = 0;
    if (stacking()) {
      fill(at);
      std::copy_n(stacks_.data() + at * stack_size_, stack_size_, obs);
    }
  }

  [[nodiscard]] int bad_action(int first, int count, const void* actions) const noexcept override {
    return rows_->bad_action(first, count, actions);
  }

  void step_rows(int first, int count, const void* actions, const StepOut& out) noexcept override {
    const auto from = static_cast<std::size_t>(first);
    const auto size = static_cast<std::size_t>(count);
    const void* done = preprocessing_.sticky_actions > 0.0 ? stick(from, size, actions) : actions;
    StepOut inner = out;
    if (stacking()) {
      inner.obs = frames_.data() + from * size_;
      inner.final_obs = final_frames_.data() + from * size_;
    }
    rows_->step_rows(first, count, done, inner);
    for (std::size_t i = 0; i < size; ++i) {
      const bool ended = (out.terminated[i] | out.truncated[i]) != 0;
      out.reward[i] = preprocessing_.reward_of(out.reward[i]);
      sticking_[from + i].steps += 1;
      sticking_[from + i].begun = static_cast<std::int64_t>(!ended);
      if (stacking()) {
        stack(from + i, ended, out.obs + i * stack_size_, out.final_obs + i * stack_size_);
      }
    }
  }

  /// A saved row is the state of its preprocessing, then the row within.
  [[nodiscard]] std::size_t row_bytes() const noexcept override { return own_bytes() + rows_->row_bytes(); }
  [[nodiscard]] bool fits(std::size_t bytes) const noexcept override {
    return bytes >= own_bytes() && rows_->fits(bytes - own_bytes());
  }
  [[nodiscard]] std::string layout() const override {
    return "a stack of " + std::to_string(preprocessing_.frame_stack) + " and the last action before " +
           rows_->layout();
  }
  void save_rows(int first, int count, std::byte* to) const noexcept override {
    const std::size_t within = rows_->row_bytes();
    std::vector<std::byte> saved(static_cast<std::size_t>(count) * within);
    rows_->save_rows(first, count, saved.data());
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      each_part(*this, static_cast<std::size_t>(first) + i, [&to](const void* part, std::size_t bytes) {
        std::memcpy(to, part, bytes);
        to += bytes;
      });
      std::memcpy(to, saved.data() + i * within, within);
      to += within;
    }
  }
  std::vector<int> load_rows(int first, int count, const std::byte* from, std::size_t bytes,
                             const StepOut& out) override {
    std::vector<int> cut;
    StepOut inner = out;
    if (stacking()) {
      inner.obs = frames_.data();
      inner.final_obs = final_frames_.data();
    }
    for (int row = first; row < first + count; ++row, from += bytes) {
      const auto at = static_cast<std::size_t>(row);
      each_part(*this, at, [part_from = from](void* part, std::size_t size) mutable {
        std::memcpy(part, part_from, size);
        part_from += size;
      });
      check_loaded(row);
      if (!rows_->load_rows(row, 1, from + own_bytes(), bytes - own_bytes(), inner).empty()) {
        cut.push_back(row);
        sticking_[at].begun = 0;
        if (stacking()) {
          std::copy_n(stacks_.data() + at * stack_size_, stack_size_, out.final_obs + at * stack_size_);
          fill(at);
          std::copy_n(stacks_.data() + at * stack_size_, stack_size_, out.obs + at * stack_size_);
        }
      }
    }
    return cut;
  }

 private:
  /// What decides whether a row sticks: its seed, its steps since, and whether its episode has an action to repeat.
  struct Sticking {
    std::uint64_t seed;
    std::int64_t steps;
    std::int64_t begun;
  };

  /// std::invalid_argument unless what was read for the row can be its preprocessing.
  void check_loaded(int row) const {
    const auto at = static_cast<std::size_t>(row);
    const Sticking& sticking = sticking_[at];
    const bool has_action = sticking.begun == 1;
    if (sticking.steps < 0 || (!has_action && sticking.begun != 0) ||
        (has_action && preprocessing_.sticky_actions > 0.0 &&
         rows_->bad_action(row, 1, actions_.data() + at * action_bytes_) >= 0)) {
      throw std::invalid_argument("saved row " + std::to_string(row) + " repeats an action that there is not");
    }
    const auto stack = std::span(stacks_).subspan(stacking() ? at * stack_size_ : 0, stacking() ? stack_size_ : 0);
    if (!std::ranges::all_of(stack, [](float number) { return std::isfinite(number); })) {
      throw std::invalid_argument("saved row " + std::to_string(row) + " holds observations that are not finite");
    }
  }

  template <class Self, class F>
  static void each_part(Self& self, std::size_t row, F&& use) noexcept {
    use(&self.sticking_[row], sizeof(Sticking));
    use(self.actions_.data() + row * self.action_bytes_, self.action_bytes_);
    if (self.stacking()) {
      use(self.stacks_.data() + row * self.stack_size_, self.stack_size_ * sizeof(float));
    }
  }

  [[nodiscard]] std::size_t own_bytes() const noexcept {
    return sizeof(Sticking) + action_bytes_ + (stacking() ? stack_size_ * sizeof(float) : 0);
  }
  [[nodiscard]] bool stacking() const noexcept { return preprocessing_.frame_stack > 1; }

  /// The actions that are done: the given ones, or a row's previous one.
  const void* stick(std::size_t first, std::size_t count, const void* actions) noexcept {
    const auto* given = static_cast<const std::byte*>(actions);
    std::byte* done = actions_.data() + first * action_bytes_;
    for (std::size_t i = 0; i < count; ++i) {
      const Sticking& row = sticking_[first + i];
      if (row.begun == 0 || !sticks(row.seed, row.steps, preprocessing_.sticky_actions)) {
        std::memcpy(done + i * action_bytes_, given + i * action_bytes_, action_bytes_);
      }
    }
    return done;
  }

  /// The row's stack holds its newest frame alone.
  void fill(std::size_t row) noexcept {
    for (int k = 0; k < preprocessing_.frame_stack; ++k) {
      std::copy_n(frames_.data() + row * size_, size_,
                  stacks_.data() + row * stack_size_ + static_cast<std::size_t>(k) * size_);
    }
  }

  void stack(std::size_t row, bool ended, float* obs, float* final_obs) noexcept {
    float* stack = stacks_.data() + row * stack_size_;
    std::copy(stack + size_, stack + stack_size_, stack);
    float* newest = stack + stack_size_ - size_;
    if (ended) {
      std::copy_n(final_frames_.data() + row * size_, size_, newest);
      std::copy_n(stack, stack_size_, final_obs);
      fill(row);
    } else {
      std::copy_n(frames_.data() + row * size_, size_, newest);
    }
    std::copy_n(stack, stack_size_, obs);
  }

  std::unique_ptr<Rows> rows_;
  Preprocessing preprocessing_;
  std::size_t size_;        ///< numbers of one observation
  std::size_t stack_size_;  ///< numbers of a stack of them
  std::size_t action_bytes_;
  std::vector<Sticking> sticking_;
  std::vector<std::byte> actions_;  ///< [rows] what each row did last
  std::vector<float> frames_;       ///< [rows, size_] observations as the rows within write them
  std::vector<float> final_frames_;
  std::vector<float> stacks_;  ///< [rows, frame_stack, size_]
};

}  // namespace shoal
