// shoal._native's hand-off between processes: Signals over a block of shared memory.
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bind/arrays.hpp"
#include "sync/signal.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

/// At most an hour, and nothing for NaN: what a wait longer than that would do is look again.
std::chrono::nanoseconds duration(double given) {
  const double seconds = given > 0.0 ? std::min(given, 3600.0) : 0.0;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(seconds));
}

using Numbers = std::vector<std::uint32_t>;
using Counts = std::vector<std::uint64_t>;

struct Mapping {
  void* memory;
  std::size_t size;
};

/// The memory behind a descriptor, which may be closed then; unmapped with the last view of the array.
nb::ndarray<nb::numpy, std::uint8_t> map_shared(int fd, std::size_t size) {
  struct stat file{};
  if (fstat(fd, &file) != 0) {
    throw std::system_error(errno, std::generic_category(), "looking at descriptor " + std::to_string(fd));
  }
  if (size < 1 || std::cmp_less(file.st_size, size)) {
    throw std::invalid_argument("size must be between 1 and the " + std::to_string(file.st_size) +
                                " bytes behind the descriptor, not " + std::to_string(size));
  }
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    throw std::system_error(errno, std::generic_category(), "mapping " + std::to_string(size) + " shared bytes");
  }
  auto mapping = std::make_unique<Mapping>(Mapping{memory, size});
  const nb::capsule owner(mapping.get(), [](void* made) noexcept {
    const std::unique_ptr<Mapping> last(static_cast<Mapping*>(made));
    munmap(last->memory, last->size);
  });
  mapping.release();
  return {memory, {size}, owner};
}

/// `_native.Signals`: keeps the block alive.
class BoundSignals {
 public:
  BoundSignals(ArrayOut block, std::size_t num_workers)
      : block_(std::move(block)),
        signals_(reinterpret_cast<std::byte*>(numbers<std::uint8_t>(block_, "block", {axis(block_, "block", 1, 0)})),
                 block_.size(), num_workers) {}

  Signals& signals() { return signals_; }

  Counts post(std::uint32_t op, const Numbers& workers, const Numbers& firsts, const Numbers& lasts) {
    if (workers.size() != firsts.size() || workers.size() != lasts.size()) {
      throw std::invalid_argument("post needs one first and one last row a worker");
    }
    Numbers sorted = workers;
    std::ranges::sort(sorted);
    if (std::ranges::adjacent_find(sorted) != sorted.end()) {
      throw std::invalid_argument("post hands a worker one task at a time");
    }
    std::vector<Task> tasks(workers.size());
    for (std::size_t i = 0; i < workers.size(); ++i) {
      tasks[i] = {op, firsts[i], lasts[i]};
    }
    Counts numbers(workers.size());
    signals_.post(workers, tasks, numbers);
    return numbers;
  }

  std::int64_t wait(const Numbers& workers, const Counts& tasks, const Numbers& ends, double spin_s, double timeout_s) {
    if (workers.size() != tasks.size() || ends.empty() || ends.back() != tasks.size() ||
        !std::ranges::is_sorted(ends)) {
      throw std::invalid_argument("wait needs one task a worker, and groups that end with the last of them");
    }
    const nb::gil_scoped_release released;
    const auto found = signals_.wait(workers, tasks, ends, duration(spin_s), duration(timeout_s));
    return found ? static_cast<std::int64_t>(*found) : -1;
  }

  std::tuple<std::uint32_t, std::uint32_t, std::uint32_t> take(std::size_t worker, std::uint64_t done, double spin_s,
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
  module.def("map_shared", &shoal::map_shared, "fd"_a, "size"_a,
             "The memory behind a descriptor as bytes that processes share; the descriptor may be closed then.");
  nb::class_<BoundSignals>(module, "Signals", "The hand-off between a parent and its workers in shared memory.")
      .def(nb::init<shoal::ArrayOut, std::size_t>(), "block"_a.noconvert(), "num_workers"_a)
      .def_static("bytes", &shoal::Signals::bytes, "num_workers"_a, "Bytes of the block.")
      .def(
          "clear", [](BoundSignals& self, std::size_t worker) { self.signals().clear(worker); }, "worker"_a,
          "Forget a worker's tasks before another process takes its place.")
      .def("post", &BoundSignals::post, "op"_a, "workers"_a, "firsts"_a, "lasts"_a,
           "Hand each of the workers a task; returns their numbers. A worker has at most two under way.")
      .def(
          "answered", [](BoundSignals& self, std::size_t worker) { return self.signals().answered(worker); },
          "worker"_a, "The last task that the worker has answered.")
      .def(
          "failed",
          [](BoundSignals& self, std::size_t worker, std::uint64_t task) {
            return self.signals().failed(worker, task);
          },
          "worker"_a, "task"_a,
          "Whether this task, one of the last two, failed, or a second process came back from one.")
      .def(
          "stray", [](BoundSignals& self, std::size_t worker) { self.signals().stray(worker); }, "worker"_a,
          "In a process that a worker's environment forked: say that it came back from the worker's task.")
      .def(
          "strayed", [](BoundSignals& self, std::size_t worker) { return self.signals().strayed(worker); }, "worker"_a,
          "Whether a second process came back from one of the worker's tasks, since clear.")
      .def(
          "wait", &BoundSignals::wait, "workers"_a, "tasks"_a, "ends"_a, "spin_s"_a, "timeout_s"_a,
          "Wait for tasks[i] of workers[i], in groups that end before ends[g]: the first group that is answered whole; "
          "-1 when the time is over or a signal came.")
      .def("take", &BoundSignals::take, "worker"_a, "done"_a, "spin_s"_a, "timeout_s"_a,
           "In a worker: the task after `done` as (op, first, last); op 0 when the time is over or a signal came.")
      .def(
          "answer",
          [](BoundSignals& self, std::size_t worker, std::uint64_t task, bool failed) {
            self.signals().answer(worker, task, failed);
          },
          "worker"_a, "task"_a, nb::kw_only(), "failed"_a, "In a worker: say that a task is done.");
}
