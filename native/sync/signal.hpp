// Words in memory that processes share: who has work, who has answered; bounded spin, then a shared futex.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <limits>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>

#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "sync/team.hpp"

namespace shoal {

using SharedWord = std::atomic<std::uint32_t>;
static_assert(SharedWord::is_always_lock_free && sizeof(SharedWord) == 4);
/// Counts a worker's tasks, which are more than 2^32 in half a day of fast steps.
using SharedCount = std::atomic<std::uint64_t>;
static_assert(SharedCount::is_always_lock_free && sizeof(SharedCount) == 8);

/// Sleeps until another process wakes one of `bits` of `word`, a signal arrives or the time is over; not at all unless
/// word == seen. std::atomic::wait would not do: it wakes threads of its own process only.
inline bool sleep_on(SharedWord& word, std::uint32_t seen, std::chrono::nanoseconds time,
                     [[maybe_unused]] std::uint32_t bits = ~0U) noexcept {
#if defined(__linux__)
  timespec until{};
  clock_gettime(CLOCK_MONOTONIC, &until);
  const auto end = std::chrono::seconds(until.tv_sec) + std::chrono::nanoseconds(until.tv_nsec) + time;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(end);
  until = {static_cast<std::time_t>(seconds.count()), static_cast<long>((end - seconds).count())};
  return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, seen, &until, nullptr, bits) == 0 || errno != EINTR;
#else
  if (word.load() == seen) {
    std::this_thread::sleep_for(std::min(time, std::chrono::nanoseconds(std::chrono::microseconds(50))));
  }
  return true;
#endif
}

/// Wakes all who sleep on one of `bits` of `word`, in one call of the kernel.
inline void wake(SharedWord& word, [[maybe_unused]] std::uint32_t bits = ~0U) noexcept {
#if defined(__linux__)
  syscall(SYS_futex, &word, FUTEX_WAKE_BITSET, std::numeric_limits<int>::max(), nullptr, nullptr, bits);
#else
  static_cast<void>(word);
#endif
}

/// What a worker is asked to do with its rows [first, last).
struct Task {
  std::uint32_t op = 0;
  std::uint32_t first = 0;
  std::uint32_t last = 0;
};

/// The hand-off between one parent and its workers in a block of zeroed shared memory. Tasks of a worker are numbered
/// 1, 2, ... and done in that order; two may be under way.
class Signals {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::uint32_t depth = 2;
  static constexpr std::size_t most_workers = std::size_t{1} << 20;

  [[nodiscard]] static constexpr std::size_t bytes(std::size_t workers) {
    if (workers > most_workers) {
      throw std::invalid_argument("there may be at most " + std::to_string(most_workers) + " workers, not " +
                                  std::to_string(workers));
    }
    return sizeof(Bell) + workers * sizeof(Desk);
  }

  /// `memory` must outlive this and be aligned to 64 bytes.
  Signals(std::byte* memory, std::size_t size, std::size_t workers) : bell_(reinterpret_cast<Bell*>(memory)) {
    if (size < bytes(workers) || reinterpret_cast<std::uintptr_t>(memory) % alignof(Bell) != 0) {
      throw std::invalid_argument("signals of " + std::to_string(workers) + " workers need " +
                                  std::to_string(bytes(workers)) + " bytes aligned to 64, not " + std::to_string(size));
    }
    desks_ = std::span(reinterpret_cast<Desk*>(memory + sizeof(Bell)), workers);
  }

  /// Parent: forgets a worker's tasks before another process takes its place.
  void clear(std::size_t worker) {
    Desk& d = desk(worker);
    d.asleep.store(0);
    d.posted.store(0);
    d.answered.store(0);
    d.strayed.store(0);
  }

  /// Parent: hands tasks[i] to workers[i], no worker twice, and writes their numbers.
  ///
  /// All are posted before any worker is woken, and all are woken at once: one that wakes on the parent's own core
  /// takes it from the parent, and the others would wait until its task is done.
  void post(std::span<const std::uint32_t> workers, std::span<const Task> tasks, std::span<std::uint64_t> numbers) {
    for (std::size_t i = 0; i < workers.size(); ++i) {
      Desk& d = desk(workers[i]);
      numbers[i] = d.posted.load(std::memory_order_relaxed) + 1;
      if (numbers[i] - d.answered.load() > depth) {
        throw std::runtime_error("worker " + std::to_string(workers[i]) + " has two tasks under way");
      }
    }
    for (std::size_t i = 0; i < workers.size(); ++i) {
      Desk& d = desk(workers[i]);
      d.tasks[numbers[i] % depth] = tasks[i];
      d.posted.store(numbers[i]);
    }
    bell_->called.fetch_add(1);
    std::uint32_t asleep = 0;
    for (const std::uint32_t worker : workers) {
      asleep |= desk(worker).asleep.load() != 0 ? bit(worker) : 0;
    }
    if (asleep != 0) {
      wake(bell_->called, asleep);
    }
  }

  /// Parent: the number of the last task that the worker has answered.
  [[nodiscard]] std::uint64_t answered(std::size_t worker) { return desk(worker).answered.load(); }

  /// Parent: whether task `number`, one of the last two, failed, or a second process came back from a task.
  [[nodiscard]] bool failed(std::size_t worker, std::uint64_t number) {
    Desk& d = desk(worker);
    return d.failed[number % depth] != 0 || d.strayed.load() != 0;
  }

  /// A process that a worker's environment forked: says that it came back from the worker's task.
  void stray(std::size_t worker) { desk(worker).strayed.store(1); }

  /// Parent: whether one did, since `clear`.
  [[nodiscard]] bool strayed(std::size_t worker) { return desk(worker).strayed.load() != 0; }

  /// Parent: waits for the tasks numbers[i] of workers[i], in groups that end before ends[g]; returns the first group
  /// of which every task is answered, or nothing when the time is over or a signal came before.
  std::optional<std::size_t> wait(std::span<const std::uint32_t> workers, std::span<const std::uint64_t> numbers,
                                  std::span<const std::uint32_t> ends, std::chrono::nanoseconds spin,
                                  std::chrono::nanoseconds time) {
    const auto begun = Clock::now();
    bool slept_well = true;
    for (bool spinning = true;;) {
      const std::uint32_t seen = bell_->rung.load();
      std::uint32_t least = std::numeric_limits<std::uint32_t>::max();
      for (std::size_t group = 0, i = 0; group < ends.size(); ++group) {
        std::uint32_t missing = 0;
        for (; i < ends[group]; ++i) {
          missing += desk(workers[i]).answered.load() < numbers[i] ? 1 : 0;
        }
        if (missing == 0) {
          return group;
        }
        least = std::min(least, missing);
      }
      const auto past = Clock::now() - begun;
      if (!slept_well || past >= time) {
        return std::nullopt;
      }
      spinning = spinning && past < spin;
      if (spinning) {
        pause_cpu();
        continue;
      }
      bell_->wake_at.store(seen + least);
      bell_->asleep.store(1);
      slept_well = sleep_on(bell_->rung, seen, time - past);
      bell_->asleep.store(0);
    }
  }

  /// Worker: the task after number `done`; op 0 when the time is over or a signal came before.
  Task take(std::size_t worker, std::uint64_t done, std::chrono::nanoseconds spin, std::chrono::nanoseconds time) {
    Desk& d = desk(worker);
    const auto begun = Clock::now();
    // Its parent may need this very core to post the task.
    while (d.posted.load() == done && Clock::now() - begun < spin) {
      std::this_thread::yield();
    }
    if (d.posted.load() == done) {
      d.asleep.store(1);
      const std::uint32_t called = bell_->called.load();
      if (d.posted.load() == done) {
        sleep_on(bell_->called, called, time, bit(worker));
      }
      d.asleep.store(0);
    }
    return d.posted.load() == done ? Task{} : d.tasks[(done + 1) % depth];
  }

  /// Worker: says that task `number` is done, and whether it failed; wakes the parent if it waits for no other.
  void answer(std::size_t worker, std::uint64_t number, bool failed) {
    Desk& d = desk(worker);
    d.failed[number % depth] = failed ? 1 : 0;
    d.answered.store(number);
    const std::uint32_t rung = bell_->rung.fetch_add(1) + 1;
    if (bell_->asleep.load() != 0 && static_cast<std::int32_t>(rung - bell_->wake_at.load()) >= 0) {
      wake(bell_->rung);
    }
  }

 private:
  struct alignas(64) Bell {
    SharedWord rung;     ///< counts answers
    SharedWord wake_at;  ///< the count from which on the parent wants to be woken
    SharedWord asleep;
    alignas(64) SharedWord called;  ///< counts posts; the workers sleep on it
  };
  struct alignas(64) Desk {
    SharedCount posted;
    SharedWord asleep;
    std::array<Task, depth> tasks;
    alignas(64) SharedCount answered;
    std::array<std::uint32_t, depth> failed;
    SharedWord strayed;
  };

  [[nodiscard]] static std::uint32_t bit(std::size_t worker) { return std::uint32_t{1} << (worker % 32); }

  [[nodiscard]] Desk& desk(std::size_t worker) {
    if (worker >= desks_.size()) {
      throw std::invalid_argument("no worker " + std::to_string(worker) + " of " + std::to_string(desks_.size()));
    }
    return desks_[worker];
  }

  Bell* bell_;
  std::span<Desk> desks_;
};

}  // namespace shoal
