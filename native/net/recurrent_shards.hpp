// The rows of a minibatch of sequences: cut into shards, and each shard into chunks of a few rows that share a tape.
#pragma once

#include <algorithm>

#include "net/recurrent_scratch.hpp"
#include "net/shards.hpp"

namespace shoal {

/// Whole sequences of rows that a minibatch picks: sample t * num_rows + row of `samples`, `start` and `valid`.
struct SequenceBatch {
  Minibatch samples;  ///< its index and count are not read
  const std::uint8_t* start;
  const std::uint8_t* valid;  ///< steps that count; null: all
  const float* h;             ///< [num_rows, size]: the memory before step 0
  const float* c;
  std::ptrdiff_t num_steps;
  std::ptrdiff_t num_rows;
  const std::int32_t* rows;  ///< which rows
  std::ptrdiff_t count;      ///< of rows
};

/// What a chunk's work is given: the rows, counted from the minibatch's first, and their tape.
struct Chunk {
  RecurrentShardMemory& shard;
  const TapeMemory& memory;
  Tape tape;
  Part rows;

  /// The chunk's sequences, the number of each sample written into the tape's index.
  [[nodiscard]] SequenceIn sequences(const SequenceBatch& batch) const noexcept {
    std::int32_t* const index = memory.index();
    for (std::ptrdiff_t t = 0; t < batch.num_steps; ++t) {
      for (std::ptrdiff_t i = 0; i < rows.count; ++i) {
        index[t * rows.count + i] = static_cast<std::int32_t>(t * batch.num_rows + batch.rows[rows.first + i]);
      }
    }
    return {batch.samples.obs, batch.start, index, batch.h, batch.c, batch.rows + rows.first};
  }
};

class SequenceShards : public Shards<RecurrentShardMemory> {
 public:
  SequenceShards(const RecurrentNet& net, int grad_shards, const Kernels& kernels, Team& team)
      : Shards(net, grad_shards, kernels, team), net_(net), kernels_(kernels) {}

  /// Cuts `count` rows of `steps` steps. Each chunk has a tape of its own with `keep`, otherwise a shard's chunks share
  /// one.
  void cut(std::ptrdiff_t steps, std::ptrdiff_t count, bool keep) {
    steps_ = steps;
    rows_ = count;
    keep_ = keep;
    for (int shard = 0; shard < this->count(); ++shard) {
      const std::ptrdiff_t rows = part(shard, count).count;
      const std::ptrdiff_t chunks = num_chunks(rows);
      std::vector<TapeMemory>& tapes = (*this)[shard].tapes;
      const std::size_t needed = keep ? static_cast<std::size_t>(chunks) : 1;
      while (tapes.size() < needed) {
        tapes.emplace_back();
      }
      for (std::size_t i = 0; i < needed && chunks > 0; ++i) {
        tapes[i].reserve(net_, steps, (rows + chunks - 1) / chunks);
      }
    }
  }

  /// work(Chunk) for all chunks, one after another in each shard, the shards side by side.
  template <class Work>
  void run_chunks(Work&& work) noexcept {
    run(rows_, [&](RecurrentShardMemory& shard, Part rows) { run_shard(shard, rows, work); });
  }

  /// The same for work that adds to the shards' sums: leaves the gradient's sum, and returns its norm.
  template <class Work>
  double add_chunks(Work&& work) noexcept {
    run(rows_, [&](RecurrentShardMemory& shard, Part rows) {
      std::fill_n(shard.sequence_sums.data(), net_.num_sums, 0.0F);
      std::fill_n(shard.head_sums.data(), net_.heads.num_sums, 0.0F);
      shard.totals = LossSums{};
      run_shard(shard, rows, work);
      kernels_.recurrent.finish(net_, shard.sums(), shard.grad.data());
    });
    return add();
  }

 private:
  /// Rows that pass through a tape together: few enough for the caches, enough to fill the products' tiles.
  [[nodiscard]] std::ptrdiff_t num_chunks(std::ptrdiff_t rows) const noexcept {
    constexpr std::ptrdiff_t samples = 512;
    constexpr std::ptrdiff_t fewest = 8;
    const std::ptrdiff_t most = std::max(samples / steps_, fewest);
    return (rows + most - 1) / most;
  }

  template <class Work>
  void run_shard(RecurrentShardMemory& shard, Part rows, Work& work) const noexcept {
    const std::ptrdiff_t chunks = num_chunks(rows.count);
    for (std::ptrdiff_t k = 0; k < chunks; ++k) {
      const std::ptrdiff_t first = rows.count * k / chunks;
      const std::ptrdiff_t end = rows.count * (k + 1) / chunks;
      const TapeMemory& memory = shard.tapes[keep_ ? static_cast<std::size_t>(k) : 0];
      const Tape tape = memory.tape(static_cast<int>(steps_), static_cast<int>(end - first));
      work(Chunk{shard, memory, tape, {rows.first + first, end - first}});
    }
  }

  const RecurrentNet& net_;
  const Kernels& kernels_;
  std::ptrdiff_t steps_ = 1;
  std::ptrdiff_t rows_ = 0;
  bool keep_ = false;
};

}  // namespace shoal
