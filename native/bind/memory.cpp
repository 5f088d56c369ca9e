// shoal._native's hand-off between processes: Signals over a block of shared memory.
#include <chrono>
#include <cstdint>
#include <span>
#include <tuple>
#include <vector>

#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bind/arrays.hpp"
#include "memory/signal.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

std::chrono::nanoseconds duration(double seconds) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(seconds));
}

/// `_native.Signals`: keeps the block alive.
class BoundSignals {
 public:
  BoundSignals(ArrayOut block, std::size_t num_workers)
      : block_(std::move(block)),
        signals_(reinterpret_cast<std::byte*>(numbers<std::uint8_t>(block_, "block", {axis(block_, "block", 1, 0)})),
                 block_.size(), num_workers) {}

  Signals& signals() { return signals_; }

  bool wait(const std::vector<std::uint32_t>& workers, const std::vector<std::uint32_t>& tasks, double spin_s,
            double timeout_s) {
    if (workers.size() != tasks.size()) {
      throw std::invalid_argument("wait needs one task a worker");
    }
    const nb::gil_scoped_release released;
    return signals_.wait(workers, tasks, duration(spin_s), duration(timeout_s));
  }

  std::tuple<std::uint32_t, std::uint32_t, std::uint32_t> take(std::size_t worker, std::uint32_t done, double spin_s,
                                                               double timeout_s) {
    const nb::gil_scoped_release released;
    const Task task = signals_.take(worker, done, duration(spin_s), duration(timeout_s));
    return {task.op, task.first, task.last};
  }

 private:
  ArrayOut block_;
  Signals signals_;
};

}  // namespace
}  // namespace shoal

void bind_memory(nb::module_& module) {
  using shoal::BoundSignals;
  nb::class_<BoundSignals>(module, "Signals", "The hand-off between a parent and its workers in shared memory.")
      .def(nb::init<shoal::ArrayOut, std::size_t>(), "block"_a.noconvert(), "num_workers"_a)
      .def_static("bytes", &shoal::Signals::bytes, "num_workers"_a, "Bytes of the block.")
      .def(
          "clear", [](BoundSignals& self, std::size_t worker) { self.signals().clear(worker); }, "worker"_a,
          "Forget a worker's tasks before another process takes its place.")
      .def(
          "post",
          [](BoundSignals& self, std::size_t worker, std::uint32_t op, std::uint32_t first, std::uint32_t last) {
            return self.signals().post(worker, {op, first, last});
          },
          "worker"_a, "op"_a, "first"_a, "last"_a, "Hand over a task; returns its number. At most two are under way.")
      .def(
          "answered", [](BoundSignals& self, std::size_t worker) { return self.signals().answered(worker); },
          "worker"_a, "The last task that the worker has answered.")
      .def(
          "failed",
          [](BoundSignals& self, std::size_t worker, std::uint32_t task) {
            return self.signals().failed(worker, task);
          },
          "worker"_a, "task"_a, "Whether this task, one of the last two, failed.")
      .def("wait", &BoundSignals::wait, "workers"_a, "tasks"_a, "spin_s"_a, "timeout_s"_a,
           "Wait until workers[i] has answered tasks[i] for every i; False when the time is over or a signal came.")
      .def("take", &BoundSignals::take, "worker"_a, "done"_a, "spin_s"_a, "timeout_s"_a,
           "In a worker: the task after `done` as (op, first, last); op 0 when the time is over or a signal came.")
      .def(
          "answer",
          [](BoundSignals& self, std::size_t worker, std::uint32_t task, bool failed) {
            self.signals().answer(worker, task, failed);
          },
          "worker"_a, "task"_a, "failed"_a, "In a worker: say that a task is done.");
}
