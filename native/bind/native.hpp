// The C++ side of shoal._native's classes, for the bindings that take each other's objects.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "core/pool.hpp"
#include "core/preprocessed.hpp"
#include "sync/team.hpp"

namespace shoal {

/// Rows of the environment `id`; std::invalid_argument for an unknown id (with the known ones) or bad parameters.
std::unique_ptr<Rows> make_rows(std::string_view id, int num_rows, const ParamMap& params,
                                const std::vector<Draw>& draws);

/// Held by the call that uses a pool; std::runtime_error where another thread's call holds it.
class InUse {
 public:
  InUse(std::atomic_flag& flag, const char* what) : flag_(flag) {
    if (flag_.test_and_set(std::memory_order_acquire)) {
      throw std::runtime_error(std::string(what) +
                               ": another thread is using this pool; one thread at a time may step, reset, save or "
                               "restore its rows");
    }
  }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;
  ~InUse() { flag_.clear(std::memory_order_release); }

 private:
  std::atomic_flag& flag_;
};

/// `_native.Pool`: rows, the team that steps them and the arrays that the steps write to.
class NativePool {
 public:
  using Array = nanobind::ndarray<nanobind::device::cpu>;
  using ConstArray = nanobind::ndarray<nanobind::ro, nanobind::device::cpu>;

  NativePool(std::string_view id, int num_rows, int num_threads, const ParamMap& params, const std::vector<Draw>& draws,
             const Preprocessing& preprocessing);

  [[nodiscard]] Rows& rows() noexcept { return *rows_; }
  [[nodiscard]] const Rows& rows() const noexcept { return *rows_; }
  [[nodiscard]] Team& team() noexcept { return team_; }
  [[nodiscard]] int num_threads() const noexcept { return team_.num_threads(); }

  /// In the order of StepOut; the references are kept until the next attach.
  void attach(std::array<Array, 8> arrays);
  void reset(const ConstArray& seeds);
  /// Begins new episodes in the rows that a flag is set for.
  void restart(const ConstArray& seeds, const ConstArray& seeded, const ConstArray& going_on);
  void send(int slot, int first, int count, ConstArray actions);
  void recv(int slot);
  [[nodiscard]] nanobind::ndarray<nanobind::numpy, std::uint8_t> state() const;
  [[nodiscard]] nanobind::ndarray<nanobind::numpy, std::uint8_t> render(int row) const;
  std::vector<int> restore(const ConstArray& bytes);
  /// Held while a call uses the pool.
  [[nodiscard]] InUse use(const char* what) const { return {in_use_, what}; }
  /// std::runtime_error when a slot is in flight: its rows are being written.
  void require_idle(const char* what) const;
  /// Whether all rows wait to be stepped.
  [[nodiscard]] bool ready() const noexcept;
  /// Steps all rows, which are ready, with actions that they do not refuse. Needs no interpreter.
  void step_all(const void* actions);
  /// Where steps are written to; of row 0.
  [[nodiscard]] const StepOut& out() const noexcept { return out_; }

 private:
  /// Rows [first, first + count) being stepped with `actions`; count 0: free.
  struct Flight {
    NativePool* pool = nullptr;
    int first = 0;
    int count = 0;
    int rows_per_task = 0;
    const void* actions = nullptr;
    ConstArray kept;  ///< holds the actions
    static void step(void* self, int task) noexcept;
  };

  [[nodiscard]] Flight& flight(int slot);
  void check_rows(int slot, int first, int count) const;
  void check_actions(int first, int count, const ConstArray& actions) const;
  void post(int slot, int first, int count, const void* actions);

  std::unique_ptr<Rows> rows_;
  std::array<Array, 8> arrays_;
  StepOut out_{};  ///< of row 0; all null before attach
  bool started_ = false;
  mutable std::atomic_flag in_use_;
  std::array<Flight, Team::num_slots> flights_;
  Team team_;  ///< last: its threads end before what they write to
};

}  // namespace shoal
