// For an environment that cannot be copied: what a row's episode began from and the actions since, to play it again.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

#include "core/env.hpp"

namespace shoal {

/// One row's episode, as it goes on or as it was saved. Saved, a row is `Head`, the observation and the actions.
template <class E>
struct Played {
  using Element = ActionElement<E>;
  using Obs = std::array<float, obs_size_of<E>>;
  struct Head {
    Pcg64 start;
    double tally;
    std::int64_t num_steps;
  };
  static constexpr std::size_t head_bytes = sizeof(Head) + sizeof(Obs);
  static constexpr std::size_t action_bytes = action_size_of<E> * sizeof(Element);

  Pcg64 start;  ///< the row's generator before the reset
  std::vector<Element> actions;

  void begin(const Pcg64& rng) noexcept {
    start = rng;
    actions.clear();
  }
  void add(const Element* action) { actions.insert(actions.end(), action, action + action_size_of<E>); }
  [[nodiscard]] std::size_t num_steps() const noexcept { return actions.size() / action_size_of<E>; }
  [[nodiscard]] std::size_t num_bytes() const noexcept { return head_bytes + num_steps() * action_bytes; }

  /// `obs` and `tally` are what playing it again must come to.
  void save(const Obs& obs, double tally, std::byte* to) const noexcept {
    const Head head{start, tally, static_cast<std::int64_t>(num_steps())};
    std::memcpy(to, &head, sizeof(head));
    std::memcpy(to + sizeof(head), obs.data(), sizeof(obs));
    std::ranges::copy(std::as_bytes(std::span(actions)), to + head_bytes);
  }

  /// Reads what `save` wrote into `row_bytes` bytes; std::invalid_argument where that cannot be.
  void load(const std::byte* from, std::size_t row_bytes, Obs& obs, double& tally) {
    Head head;
    std::memcpy(&head, from, sizeof(head));
    const auto most = static_cast<std::int64_t>((row_bytes - head_bytes) / action_bytes);
    if (head.num_steps < 0 || head.num_steps > most) {
      throw std::invalid_argument("a saved row claims " + std::to_string(head.num_steps) +
                                  " actions and has room for " + std::to_string(most));
    }
    if (!head.start.valid() || !std::isfinite(head.tally)) {
      throw std::invalid_argument("a saved row has no generator, or a return that is not finite");
    }
    start = head.start;
    tally = head.tally;
    std::memcpy(obs.data(), from + sizeof(head), sizeof(obs));
    if (!std::ranges::all_of(obs, [](float number) { return std::isfinite(number); })) {
      throw std::invalid_argument("a saved row holds an observation that is not finite");
    }
    actions.resize(static_cast<std::size_t>(head.num_steps) * action_size_of<E>);
    const std::span bytes = std::as_writable_bytes(std::span(actions));
    std::copy_n(from + head_bytes, bytes.size(), bytes.begin());
  }
};

}  // namespace shoal
