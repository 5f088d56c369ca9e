// shoal._native.MujocoRows: rows of MuJoCo simulations, stepped without Python.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bind/arrays.hpp"
#include "bind/native.hpp"
#include "mujoco/rows.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// An array of a simulation, which keeps it alive.
using Read = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;
using Written = nb::ndarray<double, nb::c_contig, nb::device::cpu>;
using ShownArray = std::tuple<Read, double, double>;
using HealthyArray = std::tuple<Read, double, double, bool>;

template <class Function>
Function at(std::uintptr_t address) {
  return reinterpret_cast<Function>(address);  // NOLINT(performance-no-int-to-ptr): Python hands addresses over
}

class MujocoRows {
 public:
  MujocoRows(std::uintptr_t step, std::uintptr_t after, std::uintptr_t user_error, const mujoco::Terms& terms,
             std::size_t num_actions, int num_threads)
      : rows_(at<mujoco::Rows::Function>(step), at<mujoco::Rows::Function>(after), terms, num_actions, num_threads) {
    if (step == 0 || user_error == 0) {
      throw std::invalid_argument("step and user_error must be addresses, not 0");
    }
    // Python's own calls of MuJoCo have a handler of their own, which comes first.
    auto& handler = *at<void (**)(const char*)>(user_error);
    if (handler == nullptr) {
      handler = mujoco::Rows::raise;
    }
  }

  void add(std::uintptr_t model, std::uintptr_t data, Written ctrl, Read place, std::optional<Read> masses,
           std::optional<Read> contacts, const std::vector<ShownArray>& shown,
           const std::vector<HealthyArray>& healthy) {
    const InUse in_use(in_use_, "add");
    const std::size_t num_masses = masses ? masses->size() : 0;
    if (model == 0 || data == 0 || ctrl.size() != rows_.num_actions() ||
        place.size() < std::max<std::size_t>(3 * num_masses, 1)) {
      throw std::invalid_argument("a row needs its model and data, as many controls as there are actions, and a place");
    }
    mujoco::Row row{
        at<const void*>(model), at<void*>(data), ctrl.data(), place.data(), nullptr, num_masses, nullptr, 0, {}, {}};
    if (masses) {
      row.masses = masses->data();
      kept_.push_back(*masses);
    }
    if (contacts) {
      row.contacts = contacts->data();
      row.num_contacts = contacts->size();
      kept_.push_back(*contacts);
    }
    for (const auto& [array, low, high] : shown) {
      row.shown.push_back({array.data(), array.size(), low, high});
      kept_.push_back(array);
    }
    for (const auto& [array, low, high, open] : healthy) {
      row.healthy.push_back({array.data(), array.size(), low, high, open});
      kept_.push_back(array);
    }
    if (rows_.size() > 0 && row.obs_size() != rows_.obs_size()) {
      throw std::invalid_argument("all rows must show as many numbers");
    }
    kept_.push_back(std::move(place));
    controls_.push_back(std::move(ctrl));
    rows_.add(std::move(row));
  }

  bool step(std::size_t first, const ArrayIn& action, const ArrayOut& obs, const ArrayOut& reward,
            const ArrayOut& terminated, double largest, double largest_reward) {
    const InUse in_use(in_use_, "step");
    const std::size_t size = rows_.size();
    const std::size_t count = axis(action, "action", 2, 0);
    if (count > size || first > size - count) {
      throw std::invalid_argument(std::to_string(count) + " rows from row " + std::to_string(first) +
                                  " are out of range for " + std::to_string(size));
    }
    const auto* actions = numbers<float>(action, "action", {count, rows_.num_actions()});
    const std::size_t wide = rows_.obs_size();
    const mujoco::Out out{numbers<double>(obs, "obs", {size, wide}), numbers<double>(reward, "reward", {size}),
                          numbers<std::uint8_t>(terminated, "terminated", {size})};
    int failed = -1;
    {
      const nb::gil_scoped_release released;
      failed = rows_.step(first, count, actions, out);
    }
    if (failed >= 0) {
      throw std::runtime_error("row " + std::to_string(failed) + ": MuJoCo failed: " + rows_.error(failed));
    }
    const auto within = [](const double* from, std::size_t many, double most) {
      return std::all_of(from, from + many, [most](double x) { return std::abs(x) <= most; });
    };
    return within(out.obs + first * wide, count * wide, largest) && within(out.reward + first, count, largest_reward);
  }

 private:
  std::vector<Read> kept_;
  std::vector<Written> controls_;
  mutable std::atomic_flag in_use_;
  mujoco::Rows rows_;  ///< last: its threads end before what they write to
};

}  // namespace
}  // namespace shoal

void bind_mujoco(const nb::module_& module) {
  using namespace shoal;
  nb::class_<MujocoRows>(module, "MujocoRows",
                         "Rows of MuJoCo simulations: stepped, observed and paid as Gymnasium's classes are.")
      .def(
          "__init__",
          [](MujocoRows* self, std::uintptr_t step, std::uintptr_t after, std::uintptr_t user_error,
             std::size_t num_actions, int num_threads, int frame_skip, double dt, std::optional<double> forward,
             std::optional<double> alive, std::optional<double> control, bool control_of_action,
             std::optional<double> contact, std::tuple<double, double> contact_forces,
             std::tuple<double, double> contact_costs, bool ends_unhealthy) {
            const auto [low, high] = contact_forces;
            const auto [least, most] = contact_costs;
            const mujoco::Terms terms{frame_skip, dt,  forward, alive, control, control_of_action,
                                      contact,    low, high,    least, most,    ends_unhealthy};
            new (self) MujocoRows(step, after, user_error, terms, num_actions, num_threads);
          },
          "step"_a, "after"_a, "user_error"_a, "num_actions"_a, "num_threads"_a, nb::kw_only(), "frame_skip"_a, "dt"_a,
          "forward"_a = nb::none(), "alive"_a = nb::none(), "control"_a = nb::none(), "control_of_action"_a = true,
          "contact"_a = nb::none(), "contact_forces"_a = std::tuple(-infinity, infinity),
          "contact_costs"_a = std::tuple(-infinity, infinity), "ends_unhealthy"_a = true,
          "Addresses of mj_step, of mj_rnePostConstraint (0: nothing reads what it computes) and of mju_user_error; "
          "the weights of what is paid, those that are there.")
      .def("add", &MujocoRows::add, "model"_a, "data"_a, "ctrl"_a.noconvert(), "place"_a.noconvert(),
           "masses"_a.noconvert() = nb::none(), "contacts"_a.noconvert() = nb::none(), "shown"_a, "healthy"_a,
           "A simulation: its addresses and its own arrays, which stay its own. `place`: whose first number is the "
           "place along x, or (with masses) [bodies, 3]; `shown`: arrays and their bounds; `healthy`: arrays, the "
           "range in which they must lie, and whether without its ends.")
      .def("step", &MujocoRows::step, "first"_a, "action"_a.noconvert(), "obs"_a.noconvert(), "reward"_a.noconvert(),
           "terminated"_a.noconvert(), "largest"_a, "largest_reward"_a,
           "One step of the rows from `first` on, as many as there are actions [rows, A] (float32), into their places "
           "in obs [B, D], reward [B] (float64) and terminated [B]; whether no observation is larger than `largest` "
           "nor reward than `largest_reward`, and none NaN. RuntimeError with what MuJoCo says where it fails.");
}
