// A whole rollout of rows on servers, without a turn through Python for each step: every server's rows act, are sent,
// and are recorded when they come, without any barrier between servers.
#pragma once

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "net/plan.hpp"
#include "net/rollout_steps.hpp"
#include "remote/channel.hpp"
#include "remote/messages.hpp"

namespace shoal {

/// A server's rows on their way through a rollout.
struct LinkedRows {
  std::ptrdiff_t first;  ///< of all rows
  PlainRows rows;
  std::uint64_t number;          ///< of the last request
  std::ptrdiff_t t = 0;          ///< the step that they are in
  std::ptrdiff_t num_final = 0;  ///< the place of the next final observation
  bool waiting = false;          ///< for the reply to the last request
  Framed request = {};           ///< the last one
  std::size_t unsent = 0;        ///< bytes at its end that nobody took yet
};

/// A request that is under way is never forgotten: whoever looks after a stream can send it again or hand over its
/// reply, and the rollout goes on.
class LinkedRollout : RolloutSteps<MlpPlan> {
  using Steps = RolloutSteps<MlpPlan>;
  using Clock = std::chrono::steady_clock;

 public:
  static constexpr int done = -1;
  static constexpr int under_way = -2;

  /// `links`: of each server the rows and the number of the last request, side by side, no more than act together.
  LinkedRollout(MlpPlan& plan, const Slab& slab, std::vector<LinkedRows> links, std::ptrdiff_t num_rows,
                std::uint64_t seed, std::uint32_t stream)
      : Steps(plan, num_rows, slab, seed, stream), links_(std::move(links)) {
    require_bounds();
    for (LinkedRows& link : links_) {
      if (link.rows.count < 1 || link.rows.count > static_cast<std::size_t>(plan_.act_block())) {
        throw std::invalid_argument("each server must have between 1 and " + std::to_string(plan_.act_block()) +
                                    " rows, not " + std::to_string(link.rows.count));
      }
      link.num_final = link.first * slab_.num_steps;
      begin(link.first, count_of(link));
    }
  }

  /// Goes on until all is `done`, or for about so long (`under_way`), or until a server's stream needs somebody who
  /// knows more: its number. That is where something else came than the rows, or nothing for a while, or where the
  /// stream takes no more of a request. std::invalid_argument where the policy chooses what is no number.
  int run(std::span<Channel* const> channels, double most_s) {
    const std::scoped_lock lock(plan_.mutex_);
    const ActPool<ActMemory>::Lease memory(plan_.act_pool_);
    const auto begun = Clock::now();
    while (true) {
      bool over = true;
      bool moved = false;
      for (std::size_t i = 0; i < links_.size(); ++i) {
        LinkedRows& link = links_[i];
        if (link.t < slab_.num_steps && !link.waiting) {
          act_and_send(link, *channels[i], *memory);
          moved = true;
        }
        if (link.unsent > 0) {
          return static_cast<int>(i);
        }
        const Channel::Found found = link.waiting ? channels[i]->look() : Channel::Found::nothing;
        if (found == Channel::Found::message && take_message(link, *channels[i], *memory)) {
          moved = true;
        } else if (found != Channel::Found::nothing) {
          return static_cast<int>(i);
        }
        over = over && link.t == slab_.num_steps;
      }
      if (over) {
        return done;
      }
      if (moved) {
        if (seconds(begun, Clock::now()) > most_s) {
          return under_way;
        }
      } else if (!wait(channels)) {
        return first_waiting();
      }
    }
  }

  /// The reply that a server's rows waited for, as somebody else received it; std::invalid_argument where it is none.
  void take(std::size_t which, std::string_view arrays, std::string_view finals) {
    LinkedRows& link = links_.at(which);
    const RowsView view(link.rows, arrays.data(), finals.data());
    if (!link.waiting || arrays.size() != link.rows.arrays_size() || !view.good(link.rows, finals.size())) {
      throw std::invalid_argument("it is no reply about all of the server's rows, each of them valid");
    }
    const std::scoped_lock lock(plan_.mutex_);
    const ActPool<ActMemory>::Lease memory(plan_.act_pool_);
    record(link, view, *memory);
  }

  [[nodiscard]] std::vector<LinkedRows>& links() noexcept { return links_; }
  [[nodiscard]] double acting_s() const noexcept { return acting_s_; }

 private:
  static constexpr int most_wait_ms = 20;

  static double seconds(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  }

  static std::ptrdiff_t count_of(const LinkedRows& link) { return static_cast<std::ptrdiff_t>(link.rows.count); }

  [[nodiscard]] int first_waiting() const noexcept {
    const auto found = std::ranges::find_if(links_, [](const LinkedRows& link) { return link.waiting; });
    return static_cast<int>(found - links_.begin());
  }

  /// Sleeps until something comes, at once: the servers have the cores, and a thread that is woken goes first; one that
  /// looks and yields may wait for others' turns. From a server whose rows are waited for; false where nothing did for
  /// long.
  bool wait(std::span<Channel* const> channels) {
    polled_.clear();
    for (std::size_t i = 0; i < links_.size(); ++i) {
      if (links_[i].waiting) {
        polled_.push_back({channels[i]->socket(), POLLIN, 0});
      }
    }
    return ::poll(polled_.data(), polled_.size(), most_wait_ms) > 0;
  }

  void act_and_send(LinkedRows& link, Channel& channel, ActMemory& memory) {
    const auto begun = Clock::now();
    const std::ptrdiff_t count = count_of(link);
    act(link.t, link.first, count, memory);
    acting_s_ += seconds(begun, Clock::now());
    const std::ptrdiff_t from = at(link.t, link.first) * plan_.num_actions();
    const void* actions = gaussian() ? nullptr : slab_.choice + from;
    if (gaussian()) {
      const float* const clipped = memory.action.data();
      clip_actions(slab_.action + from, count, memory.action.data());
      for (std::ptrdiff_t i = 0; i < count * plan_.num_actions(); ++i) {
        if (!std::isfinite(clipped[i])) {
          refuse(link.first + i / plan_.num_actions());
        }
      }
      actions = clipped;
    }
    ++link.number;
    const auto many = static_cast<std::uint32_t>(count);
    const std::size_t size = link.rows.action_size();
    const StepSizes sizes(link.number, 0, many, size);
    link.request.bytes.resize(Framed::room + sizes.message);
    put(begin_step(link.request.bytes.data() + Framed::room, sizes, link.number, 0, many, size), actions,
        link.rows.count * link.rows.action_bytes);
    link.request.close();
    link.waiting = true;
    link.unsent = channel.send(link.request.bytes);
  }

  /// False where it is anything but the rows that are waited for: it is left where it was found.
  bool take_message(LinkedRows& link, Channel& channel, ActMemory& memory) {
    const std::string_view message = channel.message();
    MessagePart part;
    if (!read_rows_part(message.data(), {0, message.size()}, part) || part.number != link.number ||
        part.values[1] != 0 || part.values[2] != link.rows.count || part.values[3] != 0 ||
        part.blocks[4].size != link.rows.arrays_size()) {
      return false;
    }
    const RowsView view(link.rows, message.data() + part.blocks[4].at, message.data() + part.blocks[5].at);
    if (!view.good(link.rows, part.blocks[5].size)) {
      return false;
    }
    record(link, view, memory);
    channel.pass();
    return true;
  }

  /// What a step came to; the last one's also to values.
  void record(LinkedRows& link, const RowsView& view, ActMemory& memory) noexcept {
    const std::size_t count = link.rows.count;
    const auto here = static_cast<std::size_t>(at(link.t, link.first));
    std::memcpy(next_obs(link.t, link.first), view.obs, count * link.rows.row_bytes());
    std::memcpy(slab_.episode_return + here, view.episode_return, count * sizeof(double));
    std::memcpy(slab_.episode_length + here, view.episode_length, count * sizeof(std::int64_t));
    const auto obs_size = link.rows.obs_size;
    const char* last = view.finals;
    for (std::size_t row = 0; row < count; ++row) {
      slab_.reward[here + row] = static_cast<float>(RowsView::at<double>(view.reward, row));
      slab_.terminated[here + row] = view.terminated[row] != 0 ? 1 : 0;
      slab_.truncated[here + row] = view.truncated[row] != 0 ? 1 : 0;
      if (!view.ended(row)) {
        continue;
      }
      std::memcpy(memory.final_obs.data() + row * obs_size, last, link.rows.row_bytes());
      last += link.rows.row_bytes();
      for (std::size_t key = 0; key < link.rows.num_info; ++key) {
        slab_.drawn[(here + row) * link.rows.num_info + key] =
            RowsView::at<double>(view.info + key * link.rows.numbers_size(), row);
      }
    }
    const std::ptrdiff_t rows = count_of(link);
    link.num_final = finish_episodes(link.t, link.first, rows, link.num_final, memory);
    link.waiting = false;
    link.unsent = 0;
    ++link.t;
    if (link.t == slab_.num_steps) {
      end(link.first, rows, memory);
    }
  }

  std::vector<LinkedRows> links_;
  std::vector<pollfd> polled_;
  double acting_s_ = 0.0;
};

}  // namespace shoal
