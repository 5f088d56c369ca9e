// Memory that a plan makes once and reuses: aligned buffers, and one workspace for each thread that may act at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "net/kernels.hpp"

namespace shoal {

/// `size` zeroed numbers that start at a cache line.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::ptrdiff_t size)
      : data_(new (std::align_val_t{cache_line}) T[static_cast<std::size_t>(size < 1 ? 1 : size)]()) {}
  [[nodiscard]] T* data() const noexcept { return data_.get(); }

 private:
  static constexpr std::size_t cache_line = 64;
  struct Free {
    void operator()(T* data) const noexcept { ::operator delete[](data, std::align_val_t{cache_line}); }
  };
  std::unique_ptr<T, Free> data_;
};

/// A chunk's buffers for one net.
class ChunkMemory {
 public:
  explicit ChunkMemory(const Net& net)
      : wide_(padded(net.max_width) * chunk_samples),
        floats_(wide_ * (net.max_depth + 4) + padded(net.obs_size) * chunk_samples +
                padded(net.num_actions) * chunk_samples),
        choices_(padded(net.num_actions) * chunk_samples) {
    float* next = floats_.data();
    const auto take = [&next](std::ptrdiff_t size) {
      float* const here = next;
      next += size;
      return here;
    };
    space_.obs = take(padded(net.obs_size) * chunk_samples);
    space_.hidden = take(wide_ * net.max_depth);
    space_.hidden_stride = wide_;
    space_.output = take(wide_);
    space_.delta = take(wide_);
    space_.delta_next = take(wide_);
    space_.transposed = take(wide_);
    space_.action = take(padded(net.num_actions) * chunk_samples);
    space_.choice = choices_.data();
  }
  [[nodiscard]] const Workspace& space() const noexcept { return space_; }

 private:
  std::ptrdiff_t wide_;
  Buffer<float> floats_;
  Buffer<std::int32_t> choices_;
  Workspace space_{};
};

/// What one thread needs to act and step a block of rows.
struct ActMemory {
  ActMemory(const Net& net, int block) : ActMemory(net, net.obs_size, block) {}
  /// Of a policy whose observations are not what `net` takes.
  ActMemory(const Net& net, int obs_size, int block)
      : chunk(net),
        reward(block),
        final_obs(static_cast<std::ptrdiff_t>(block) * obs_size),
        value(block),
        ended(block),
        action(static_cast<std::ptrdiff_t>(block) * net.num_actions) {}
  ChunkMemory chunk;
  Buffer<double> reward;
  Buffer<float> final_obs;
  Buffer<float> value;
  Buffer<std::int32_t> ended;  ///< the block's rows whose episode ended
  Buffer<float> action;        ///< clipped, for the environment
  std::atomic<bool> taken{false};
};

/// One Memory (an ActMemory or what extends it) for each of a team's threads, handed out to its tasks.
template <class Memory>
class ActPool {
 public:
  template <class Shape>
  ActPool(int threads, const Shape& net, int block) {
    for (int i = 0; i < threads; ++i) {
      all_.push_back(std::make_unique<Memory>(net, block));
    }
  }

  /// Holds a free memory for as long as the lease lives. No more than `threads` leases live at a time.
  class Lease {
   public:
    explicit Lease(ActPool& pool) noexcept : memory_(pool.take()) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { memory_.taken.store(false, std::memory_order_release); }
    Memory* operator->() const noexcept { return &memory_; }
    Memory& operator*() const noexcept { return memory_; }

   private:
    Memory& memory_;
  };

 private:
  Memory& take() noexcept {
    for (std::size_t i = 0;; i = (i + 1) % all_.size()) {
      if (!all_[i]->taken.exchange(true, std::memory_order_acquire)) {
        return *all_[i];
      }
    }
  }
  std::vector<std::unique_ptr<Memory>> all_;
};

/// What one part of a minibatch needs for its gradient; nothing in it outlasts a call.
struct ShardMemory {
  explicit ShardMemory(const Net& net) : chunk(net), sums(net.num_sums), grad(net.num_params) {}

  ChunkMemory chunk;
  Buffer<float> sums;
  Buffer<float> grad;
  LossSums totals{};
};

/// The activations of one part of a minibatch, from a forward to its backward.
struct KeptMemory {
  /// Room for those of `count` samples.
  void reserve(const Net& net, std::ptrdiff_t count) {
    const std::ptrdiff_t wanted = (count + chunk_samples - 1) / chunk_samples;
    if (wanted > chunks) {
      floats = Buffer<float>(wanted * kept_floats(net));
      chunks = wanted;
    }
  }

  Buffer<float> floats{0};
  std::ptrdiff_t chunks = 0;
};

}  // namespace shoal
