// Rows of MuJoCo simulations, stepped by a team of threads; what Gymnasium's classes observe and pay, with their bits.
//
// MuJoCo is not linked: its functions, and the numbers of a simulation, come as addresses from the Python package.
#pragma once

#include <algorithm>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "math/numpy.hpp"
#include "sync/team.hpp"

namespace shoal::mujoco {

/// Numbers that an observation shows, each within low..high.
struct Shown {
  const double* from;
  std::size_t count;
  double low, high;
};

/// Numbers that all lie in a range, without its ends where it is open, while the body is healthy.
struct Healthy {
  const double* from;
  std::size_t count;
  double low, high;
  bool open;

  [[nodiscard]] bool holds() const noexcept {
    bool held = true;
    for (std::size_t i = 0; i < count; ++i) {
      held &= open ? low < from[i] && from[i] < high : low <= from[i] && from[i] <= high;
    }
    return held;
  }
};

/// One simulation. The memory is MuJoCo's, and stays where it is as long as the simulation is there.
struct Row {
  const void* model;
  void* data;
  double* ctrl;
  /// The place along x: its first number; or where there are masses, the mean of every third, weighed by them.
  const double* place;
  const double* masses;
  std::size_t num_masses;
  const double* contacts;
  std::size_t num_contacts;
  std::vector<Shown> shown;
  std::vector<Healthy> healthy;

  [[nodiscard]] std::size_t obs_size() const noexcept {
    std::size_t size = 0;
    for (const Shown& part : shown) {
      size += part.count;
    }
    return size;
  }
};

/// What a step pays: those terms that are there, with Gymnasium's weights.
struct Terms {
  int frame_skip = 1;
  double dt = 1;
  std::optional<double> forward;
  std::optional<double> alive;
  std::optional<double> control;
  bool control_of_action = true;  ///< float32, as the action is; else that of the simulation's own controls
  std::optional<double> contact;
  double contact_low, contact_high;    ///< each force is clipped to
  double contact_least, contact_most;  ///< and the cost
  bool ends_unhealthy = true;
};

/// Where steps are written to: arrays of all rows, observations [rows, size].
struct Out {
  double* obs;
  double* reward;
  std::uint8_t* terminated;
};

class Rows {
 public:
  using Function = void (*)(const void* model, void* data);

  /// `step`: mj_step; `after`: mj_rnePostConstraint, or null where nothing reads what it computes.
  Rows(Function step, Function after, const Terms& terms, std::size_t num_actions, int num_threads)
      : step_(step), after_(after), terms_(terms), num_actions_(num_actions), team_(num_threads) {}

  void add(Row row) {
    rows_.push_back(std::move(row));
    rooms_.push_back(
        {std::vector<float>(num_actions_), std::vector<double>(std::max(rows_.back().num_contacts, num_actions_)), {}});
  }

  [[nodiscard]] std::size_t size() const noexcept { return rows_.size(); }
  [[nodiscard]] std::size_t num_actions() const noexcept { return num_actions_; }
  [[nodiscard]] std::size_t obs_size() const noexcept { return rows_.empty() ? 0 : rows_.front().obs_size(); }

  /// Steps `count` rows from `first` on; the number of the first in which MuJoCo raised an error, or -1.
  int step(std::size_t first, std::size_t count, const float* actions, const Out& out) noexcept {
    const std::size_t size = obs_size();
    team_.run(static_cast<int>(count), [&](int task) {
      const std::size_t i = first + static_cast<std::size_t>(task);
      const float* action = actions + static_cast<std::size_t>(task) * num_actions_;
      rooms_[i].error.clear();
      const double before = place(rows_[i]);
      if (!simulate(i, action)) {
        return;
      }
      observe(i, out.obs + i * size);
      const bool healthy = is_healthy(rows_[i]);
      out.reward[i] = pay(i, action, before, healthy);
      out.terminated[i] = static_cast<std::uint8_t>(terms_.ends_unhealthy && !healthy);
    });
    for (std::size_t i = first; i < first + count; ++i) {
      if (!rooms_[i].error.empty()) {
        return static_cast<int>(i);
      }
    }
    return -1;
  }

  [[nodiscard]] const std::string& error(int row) const noexcept { return rooms_[static_cast<std::size_t>(row)].error; }

  /// Put where MuJoCo calls it for an error: it must not return. Threads that are not ours end as MuJoCo ends them.
  static void raise(const char* message) noexcept {
    if (landing == nullptr) {
      std::fprintf(stderr, "ERROR: %s\n", message);
      std::exit(EXIT_FAILURE);
    }
    std::snprintf(landing->message, sizeof(landing->message), "%s", message);
    std::longjmp(landing->back, 1);  // NOLINT(modernize-avoid-setjmp-longjmp): through frames of C
  }

 private:
  void observe(std::size_t i, double* obs) const noexcept {
    for (const Shown& shown : rows_[i].shown) {
      for (std::size_t j = 0; j < shown.count; ++j) {
        *obs++ = numpy_clip(shown.from[j], shown.low, shown.high);
      }
    }
  }

  /// What a row's step needs room for: what is summed, and what MuJoCo says of an error.
  struct Room {
    std::vector<float> singles;
    std::vector<double> squares;
    std::string error;
  };
  struct Landing {
    std::jmp_buf back;
    char message[1024];
  };
  inline static thread_local Landing* landing = nullptr;

  /// False where MuJoCo raised an error: nothing is left on the way back that would have to be freed.
  bool simulate(std::size_t i, const float* action) noexcept {
    const Row& row = rows_[i];
    Landing here;
    landing = &here;
    if (setjmp(here.back) != 0) {  // NOLINT(modernize-avoid-setjmp-longjmp): through frames of C
      landing = nullptr;
      rooms_[i].error = here.message;
      return false;
    }
    for (std::size_t j = 0; j < num_actions_; ++j) {
      row.ctrl[j] = static_cast<double>(action[j]);
    }
    for (int frame = 0; frame < terms_.frame_skip; ++frame) {
      step_(row.model, row.data);
    }
    if (after_ != nullptr) {
      after_(row.model, row.data);
    }
    landing = nullptr;
    return true;
  }

  [[nodiscard]] double place(const Row& row) const noexcept {
    if (!terms_.forward) {
      return 0;
    }
    if (row.num_masses == 0) {
      return *row.place;
    }
    double sum = 0;  // np.einsum("b,bj->j"), then divided by np.sum
    for (std::size_t b = 0; b < row.num_masses; ++b) {
      sum += row.masses[b] * row.place[3 * b];
    }
    return sum / numpy_sum(row.masses, row.num_masses);
  }

  static bool is_healthy(const Row& row) noexcept {
    bool healthy = true;
    for (const Healthy& range : row.healthy) {
      healthy &= range.holds();
    }
    return healthy;
  }

  /// In the order in which Gymnasium adds: what is gained, less what all costs come to.
  double pay(std::size_t i, const float* action, double before, bool healthy) noexcept {
    double gain = 0;
    if (terms_.forward) {
      gain = *terms_.forward * ((place(rows_[i]) - before) / terms_.dt);
    }
    if (terms_.alive) {
      const double alive = (healthy ? 1.0 : 0.0) * *terms_.alive;
      gain = terms_.forward ? gain + alive : alive;
    }
    if (!terms_.control) {
      return gain;
    }
    double cost = control_cost(i, action);
    if (terms_.contact) {
      cost += contact_cost(i);
    }
    return gain - cost;
  }

  double control_cost(std::size_t i, const float* action) noexcept {
    if (terms_.control_of_action) {
      float* const squares = rooms_[i].singles.data();
      for (std::size_t j = 0; j < num_actions_; ++j) {
        squares[j] = action[j] * action[j];
      }
      return static_cast<double>(static_cast<float>(terms_.control.value_or(0)) * numpy_sum(squares, num_actions_));
    }
    double* const squares = rooms_[i].squares.data();
    for (std::size_t j = 0; j < num_actions_; ++j) {
      squares[j] = rows_[i].ctrl[j] * rows_[i].ctrl[j];
    }
    return terms_.control.value_or(0) * numpy_sum(squares, num_actions_);
  }

  double contact_cost(std::size_t i) noexcept {
    const Row& row = rows_[i];
    double* const squares = rooms_[i].squares.data();
    for (std::size_t j = 0; j < row.num_contacts; ++j) {
      const double force = numpy_clip(row.contacts[j], terms_.contact_low, terms_.contact_high);
      squares[j] = force * force;
    }
    const double cost = terms_.contact.value_or(0) * numpy_sum(squares, row.num_contacts);
    return numpy_clip(cost, terms_.contact_least, terms_.contact_most);
  }

  Function step_, after_;
  Terms terms_;
  std::size_t num_actions_;
  std::vector<Row> rows_;
  std::vector<Room> rooms_;
  Team team_;  ///< last: its threads end before what they write to
};

}  // namespace shoal::mujoco
