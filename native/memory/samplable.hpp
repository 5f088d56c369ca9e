// How many steps of a memory can be sampled: counted once, when they or their successors are written, not by looking at
// all of them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "memory/transitions.hpp"

namespace shoal {

class Samplable {
 public:
  Samplable(const Rings& rings, const TransitionReader& reader)
      : rings_(rings),
        reader_(reader),
        begins_(rings.num_rows() * rings.slots()),
        seen_(rings.num_rows()),
        counts_(rings.num_rows()) {}

  /// As many as there are now.
  [[nodiscard]] std::uint64_t count() {
    for (std::size_t row = 0; row < seen_.size(); ++row) {
      const std::uint64_t head = rings_.num_records(row);
      if (head < seen_[row]) forget(row);  // the memory was cleared
      if (head != seen_[row]) follow(row, head);
    }
    return std::accumulate(counts_.begin(), counts_.end(), std::uint64_t{0});
  }

 private:
  /// Takes in the records since the row was last looked at, and the one before them, whose successor is there now.
  void follow(std::size_t row, std::uint64_t head) {
    const std::uint64_t before = seen_[row] > 0 ? seen_[row] - 1 : 0;
    const std::uint64_t first = head > rings_.slots() ? std::max(before, head - rings_.slots()) : before;
    for (std::uint64_t index = first; index < head; ++index) {
      const bool begins = reader_.samplable({row, index}, head);
      std::uint8_t& known = begins_[row * rings_.slots() + index % rings_.slots()];
      counts_[row] += (begins ? 1 : 0) - known;
      known = begins ? 1 : 0;
    }
    seen_[row] = head;
  }

  void forget(std::size_t row) {
    std::fill_n(begins_.begin() + static_cast<std::ptrdiff_t>(row * rings_.slots()), rings_.slots(), std::uint8_t{0});
    seen_[row] = counts_[row] = 0;
  }

  const Rings& rings_;
  const TransitionReader& reader_;
  std::vector<std::uint8_t> begins_;  ///< of each slot, 1 where a transition begins
  std::vector<std::uint64_t> seen_;   ///< of each row, how many records were looked at
  std::vector<std::uint64_t> counts_;
};

}  // namespace shoal
