// A team of threads that shares its caller's work: spins, then yields, then sleeps; no allocation per job.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace shoal {

inline void pause_cpu() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until `value` differs from `old`, and returns what it saw: spins first, then offers its core to everybody else
/// for a while, then sleeps in the kernel.
///
/// The caller comes back with more work within the second of these times where it runs Python between two calls. A core
/// that has nothing to do halts, and is slow to come back: on a virtual machine it takes as long as a small job.
template <class T>
T wait_while_equal(const std::atomic<T>& value, T old) noexcept {
  constexpr auto spin_time = std::chrono::microseconds(50);
  constexpr auto yield_time = std::chrono::microseconds(2000);
  const auto begun = std::chrono::steady_clock::now();
  for (auto past = std::chrono::nanoseconds(0); past < yield_time; past = std::chrono::steady_clock::now() - begun) {
    for (int i = 0; i < 32; ++i) {
      const T seen = value.load(std::memory_order_acquire);
      if (seen != old) {
        return seen;
      }
      pause_cpu();
    }
    if (past > spin_time) {
      std::this_thread::yield();
    }
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

/// Fixed threads that take tasks from up to two posted jobs. The thread that waits for a job works on it too, so a team
/// of one has no thread of its own. `run`, `post` and `wait` belong to one thread at a time. Tasks must not throw.
class Team {
 public:
  static constexpr int num_slots = 2;

  /// `num_threads` counts the caller: num_threads - 1 threads are started.
  explicit Team(int num_threads) : num_threads_(num_threads) {
    if (num_threads < 1 || num_threads > max_threads) {
      throw std::invalid_argument("num_threads must be between 1 and " + std::to_string(max_threads) + ", not " +
                                  std::to_string(num_threads));
    }
    threads_.reserve(static_cast<std::size_t>(num_threads - 1));
    try {
      for (int i = 1; i < num_threads; ++i) {
        threads_.emplace_back([this] { work(); });
      }
    } catch (...) {
      stop();
      throw;
    }
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() { stop(); }

  [[nodiscard]] int num_threads() const noexcept { return num_threads_; }

  /// Runs task(i) for every i in [0, num_tasks) on the team; returns when all are done.
  template <class F>
  void run(int num_tasks, F&& task) noexcept {
    using Task = std::remove_reference_t<F>;
    if (num_threads_ == 1 || num_tasks == 1) {
      for (int i = 0; i < num_tasks; ++i) {
        task(i);
      }
      return;
    }
    auto* context = const_cast<std::remove_const_t<Task>*>(std::addressof(task));
    start(jobs_[num_slots], num_tasks, [](void* self, int i) { (*static_cast<Task*>(self))(i); }, context);
    finish(jobs_[num_slots]);
  }

  /// Starts call(context, i) for every i in [0, num_tasks) and returns at once. `slot` (0 or 1) must be free.
  void post(int slot, int num_tasks, void (*call)(void*, int), void* context) noexcept {
    start(jobs_[static_cast<std::size_t>(slot)], num_tasks, call, context);
  }

  /// Helps with the job posted in `slot` and returns when it is done.
  void wait(int slot) noexcept { finish(jobs_[static_cast<std::size_t>(slot)]); }

 private:
  static constexpr int max_threads = 1024;

  struct alignas(64) Job {
    /// The tasks that nobody has claimed: from the high half up to, not including, the low half. The waiting thread
    /// claims from the front and the others from the back, so that a task, and its memory, stays with its core from job
    /// to job. What a claim found is read after it: a late thread can claim only what is there.
    std::atomic<std::uint64_t> unclaimed{0};
    std::atomic<std::uint32_t> unfinished{0};
    void (*call)(void*, int) = nullptr;
    void* context = nullptr;
  };

  void start(Job& job, int num_tasks, void (*call)(void*, int), void* context) noexcept {
    if (num_tasks <= 0) {
      return;
    }
    job.call = call;
    job.context = context;
    job.unfinished.store(static_cast<std::uint32_t>(num_tasks), std::memory_order_relaxed);
    job.unclaimed.store(static_cast<std::uint32_t>(num_tasks), std::memory_order_release);
    if (num_threads_ > 1) {
      news_.fetch_add(1, std::memory_order_release);
      news_.notify_all();
    }
  }

  enum class End { front, back };

  /// Claims and runs one task; false when the job has none left to claim.
  static bool help(Job& job, End end) noexcept {
    std::uint64_t range = job.unclaimed.load(std::memory_order_acquire);
    std::uint32_t first = 0;
    std::uint32_t last = 0;
    do {
      first = static_cast<std::uint32_t>(range >> 32);
      last = static_cast<std::uint32_t>(range);
      if (first == last) {
        return false;
      }
    } while (!job.unclaimed.compare_exchange_weak(
        range, end == End::front ? range + (std::uint64_t{1} << 32) : range - 1, std::memory_order_acq_rel));
    job.call(job.context, static_cast<int>(end == End::front ? first : last - 1));
    if (job.unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      job.unfinished.notify_all();
    }
    return true;
  }

  static void finish(Job& job) noexcept {
    while (help(job, End::front)) {
    }
    std::uint32_t left = job.unfinished.load(std::memory_order_acquire);
    while (left != 0) {
      left = wait_while_equal(job.unfinished, left);
    }
  }

  void work() noexcept {
    std::uint32_t seen = news_.load(std::memory_order_acquire);
    while (!stopping_.load(std::memory_order_acquire)) {
      for (Job& job : jobs_) {
        while (help(job, End::back)) {
        }
      }
      seen = wait_while_equal(news_, seen);
    }
  }

  void stop() noexcept {
    stopping_.store(true, std::memory_order_release);
    news_.fetch_add(1, std::memory_order_release);
    news_.notify_all();
    for (std::thread& thread : threads_) {
      thread.join();
    }
    threads_.clear();
  }

  int num_threads_;
  std::array<Job, num_slots + 1> jobs_;  ///< the last one is run's own
  alignas(64) std::atomic<std::uint32_t> news_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace shoal
