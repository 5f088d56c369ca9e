// Transitions of one step, many at a time: each is a record and the next one of its row.
//
// What `TransitionReader` reads one after the other is read here in short loops over a block of them, which do one
// thing each: sequence numbers and heads, then the words of each array, then the sequence numbers again.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "memory/transitions.hpp"

namespace shoal {

/// A place that was drawn, and its slot.
struct Drawn {
  Place place;
  std::size_t slot;
};

class PairReader {
 public:
  PairReader(const Rings& rings, const TransitionReader& reader) : rings_(rings), reader_(reader) {}

  /// Whether all that is read are such pairs, of records so small that a block of them stays in the cache.
  [[nodiscard]] bool reads_all() const noexcept {
    const RecordLayout& layout = rings_.layout();
    const bool small = reader_.num_ahead() >= least_ahead;
    return small && reader_.num_steps() == 1 && layout.frames == 1 && layout.mask.bytes == 0;
  }

  /// Writes transitions 0 to the number of `drawn`, whose successors are in their rings. Into `left`: those where none
  /// begins, or that were overwritten meanwhile, in their order.
  void fill(const TransitionArrays& out, std::span<const Drawn> drawn, std::vector<std::size_t>& left) const {
    left.clear();
    for (std::size_t b = 0; b < std::min(reader_.num_ahead(), drawn.size()); ++b) prefetch(drawn[b]);
    for (std::size_t b = 0; b < drawn.size(); b += block_size) {
      fill_block(out, b, drawn.subspan(b), left);
    }
  }

 private:
  /// Its records, and what is written of them, stay in the first cache.
  static constexpr std::size_t block_size = 64;
  /// Fewer are fetched ahead of larger records (measured: of 1 KiB, where blocks are a fifth slower).
  static constexpr std::size_t least_ahead = 5;

  struct Block {
    std::array<RecordWord*, block_size> step;
    std::array<RecordWord*, block_size> next;
    std::array<bool, block_size> found;
  };

  [[gnu::always_inline]] void prefetch(const Drawn& drawn) const noexcept {
    reader_.prefetch(drawn.place.row, drawn.slot);
  }

  /// `rest`: from the block's first transition to the last of all.
  void fill_block(const TransitionArrays& out, std::size_t b, std::span<const Drawn> rest,
                  std::vector<std::size_t>& left) const {
    Block block;
    const std::size_t count = std::min(block_size, rest.size());
    const std::size_t ahead = reader_.num_ahead();
    for (std::size_t i = ahead; i < std::min(ahead + count, rest.size()); ++i) prefetch(rest[i]);
    find(rest.first(count), block);
    read_heads(out, b, rest.first(count), block);
    const RecordLayout& layout = rings_.layout();
    for (std::size_t i = 0; i < layout.obs.size(); ++i) {
      copy(layout.obs[i], block.step.data(), count, out.obs[i] + b * layout.obs[i].bytes);
      copy(layout.obs[i], block.next.data(), count, out.next_obs[i] + b * layout.obs[i].bytes);
    }
    for (std::size_t i = 0; i < layout.action.size(); ++i) {
      copy(layout.action[i], block.step.data(), count, out.action[i] + b * layout.action[i].bytes);
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (!block.found[i] || !are_whole(block, i, rest[i].place.index)) left.push_back(b + i);
    }
  }

  void find(std::span<const Drawn> drawn, Block& block) const noexcept {
    const std::size_t slots = rings_.slots();
    const std::size_t stride = rings_.stride();
    RecordWord* const words = rings_.slot(0, 0);
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      const auto& [place, slot] = drawn[i];
      RecordWord* const row = words + place.row * slots * stride;
      block.step[i] = row + slot * stride;
      block.next[i] = slot + 1 < slots ? block.step[i] + stride : row;
    }
  }

  /// Sequence numbers and numbers of the records, and whether a transition begins there.
  void read_heads(const TransitionArrays& out, std::size_t b, std::span<const Drawn> drawn,
                  Block& block) const noexcept {
    const PlaceKeys keys{rings_.num_rows()};
    const auto gamma = static_cast<float>(reader_.gamma());
    float* const reward = out.reward + b;
    float* const discount = out.discount + b;
    std::int32_t* const version = out.version + b;
    std::int64_t* const key = out.key + b;
    std::fill_n(out.steps + b, drawn.size(), 1);
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      const Place& place = drawn[i].place;
      const bool whole = are_whole(block, i, place.index);
      const RecordHead step = RecordRead(block.step[i], place.index).head();
      const RecordHead next = RecordRead(block.next[i], place.index + 1).head();
      block.found[i] = whole && TransitionReader::leads(step, next);
      reward[i] = step.reward;
      discount[i] = (step.flags & RecordFlags::terminated) != 0 ? 0.0F : gamma;
      version[i] = step.version;
      key[i] = keys.key(place);
    }
  }

  [[gnu::always_inline]] [[nodiscard]] bool are_whole(const Block& block, std::size_t i,
                                                      std::uint64_t index) const noexcept {
    return reader_.is_whole(RecordRead(block.step[i], index)) && reader_.is_whole(RecordRead(block.next[i], index + 1));
  }

  static void copy(const RecordPart& part, RecordWord* const* slots, std::size_t count, std::byte* to) noexcept {
    switch (part.bytes) {
      case 8:
        return copy_words<1>(part.first, slots, count, to);
      case 16:
        return copy_words<2>(part.first, slots, count, to);
      case 24:
        return copy_words<3>(part.first, slots, count, to);
      case 32:
        return copy_words<4>(part.first, slots, count, to);
      default:
        break;
    }
    for (std::size_t i = 0; i < count; ++i) part.load(slots[i] + 1, to + i * part.bytes);
  }

  /// A part of a few whole words, whose number the compiler knows.
  template <std::size_t num_words>
  static void copy_words(std::size_t first, RecordWord* const* slots, std::size_t count, std::byte* to) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
      const RecordPart part{first, num_words * sizeof(std::uint64_t)};
      part.load(slots[i] + 1, to + i * part.bytes);
    }
  }

  const Rings& rings_;
  const TransitionReader& reader_;
};

}  // namespace shoal
