// shoal._native's sessions over Unix sockets: a server's plain steps, and a client's rollouts.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <sched.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "bind/native.hpp"
#include "bind/slab.hpp"
#include "net/linked_rollout.hpp"
#include "remote/channel.hpp"
#include "remote/messages.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

using Clock = std::chrono::steady_clock;

nb::bytes bytes_of(std::string_view text) { return nb::bytes(text.data(), text.size()); }

/// ValueError unless it is a time that a call may take.
double checked_seconds(double seconds, const char* name) {
  if (!(seconds >= 0.0 && seconds <= 1.0)) {
    throw std::invalid_argument(std::string(name) + " must lie between 0 and 1, not " + std::to_string(seconds));
  }
  return seconds;
}

PlainRows plain_rows(const Rows& rows) {
  const auto action = static_cast<std::size_t>(rows.action_size());
  return {static_cast<std::size_t>(rows.num_rows()), static_cast<std::size_t>(rows.obs_size()),
          action * (rows.discrete() ? sizeof(std::int64_t) : sizeof(float)),
          static_cast<std::size_t>(rows.num_drawn())};
}

/// Answers requests to step all rows of a pool, as they come one after the other.
class Serving {
 public:
  static constexpr std::size_t kept = 4;

  Serving(NativePool& pool, Channel& channel, std::uint64_t number)
      : pool_(pool), channel_(channel), rows_(plain_rows(pool.rows())), action_(rows_.action_size()), number_(number) {}

  /// Until something else comes, or nothing for `spin_s`, or the client takes no reply, or about `most_s` have passed.
  void run(double spin_s, double most_s) {
    const auto begun = Clock::now();
    auto heard = begun;
    while (pool_.ready() && unsent_ == 0) {
      const Channel::Found found = channel_.look();
      const auto now = Clock::now();
      if (found == Channel::Found::message) {
        heard = now;
        if (std::chrono::duration<double>(now - begun).count() > most_s || !answer()) {
          return;
        }
      } else if (found == Channel::Found::other) {
        return;
      } else if (std::chrono::duration<double>(now - heard).count() > spin_s) {
        quiet_ = true;
        return;
      } else {
        ::sched_yield();
      }
    }
  }

  /// The number of the last request that was answered, the last replies, what of the last one is not sent yet, and
  /// whether nothing came.
  [[nodiscard]] nb::tuple result() const {
    nb::list replies;
    for (std::size_t i = answered_ < kept ? 0 : answered_ - kept; i < answered_; ++i) {
      replies.append(bytes_of(replies_[i % kept].message()));
    }
    const Framed& last = replies_[(answered_ + kept - 1) % kept];
    const std::string_view all(last.bytes.data(), last.bytes.size());
    return nb::make_tuple(number_, replies, bytes_of(all.substr(all.size() - unsent_)), quiet_);
  }

 private:
  /// False where it is no step of all rows with good actions: it is left where it is.
  bool answer() {
    const std::string_view message = channel_.message();
    MessagePart part;
    if (!read_step_part(message.data(), {0, message.size()}, part) || part.number != number_ + 1 ||
        part.values[1] != 0 || part.values[2] != rows_.count || part.blocks[3].size != rows_.action_size()) {
      return false;
    }
    std::memcpy(action_.data(), message.data() + part.blocks[3].at, action_.size());
    const auto count = static_cast<int>(rows_.count);
    if (pool_.rows().bad_action(0, count, action_.data()) >= 0) {
      return false;
    }
    channel_.pass();
    pool_.step_all(action_.data());
    Framed& reply = replies_[answered_ % kept];
    write_rows(reply.bytes, Framed::room, ++number_, rows_, pool_.out());
    reply.close();
    ++answered_;
    unsent_ = channel_.send(reply.bytes);
    return true;
  }

  NativePool& pool_;
  Channel& channel_;
  PlainRows rows_;
  std::vector<char> action_;  ///< aligned for any number
  std::uint64_t number_;
  std::array<Framed, kept> replies_;
  std::size_t answered_ = 0, unsent_ = 0;
  bool quiet_ = false;
};

nb::tuple serve_steps(NativePool& pool, Channel& channel, std::uint64_t number, double spin_s, double most_s) {
  const InUse in_use = pool.use("serve_steps");
  Serving serving(pool, channel, number);
  {
    const nb::gil_scoped_release released;
    serving.run(checked_seconds(spin_s, "spin_s"), checked_seconds(most_s, "most_s"));
  }
  return serving.result();
}

/// `_native.LinkedRollout`: the rollout, and references to what it reads and writes.
class NativeLinked {
 public:
  NativeLinked(NativePlan& plan, const std::vector<std::pair<std::size_t, std::uint64_t>>& servers,
               std::size_t num_info, const std::vector<ArrayOut>& arrays, std::uint64_t seed, std::uint32_t stream,
               const ArrayIn& rows, const OptionalArray& epsilon)
      : plan_(nb::find(plan)),
        arrays_(arrays),
        rows_(rows),
        epsilon_(epsilon),
        rollout_(make(plan, servers, num_info, seed, checked_stream(stream))) {}

  int run(const std::vector<Channel*>& channels, double most_s) {
    if (channels.size() != rollout_.links().size() || std::ranges::find(channels, nullptr) != channels.end()) {
      throw std::invalid_argument("there must be a channel to each server");
    }
    const nb::gil_scoped_release released;
    return rollout_.run(channels, checked_seconds(most_s, "most_s"));
  }

  void take(std::size_t which, nb::bytes data, std::size_t at, std::size_t size, std::size_t final_at,
            std::size_t final_size) {
    const std::string_view all(data.c_str(), data.size());
    if (which >= rollout_.links().size() || at > all.size() || final_at > all.size()) {
      throw std::invalid_argument("there is no such server, or its arrays do not lie within the message");
    }
    rollout_.take(which, all.substr(at, size), all.substr(final_at, final_size));
  }

  nb::list requests() {
    nb::list found;
    for (LinkedRows& link : rollout_.links()) {
      const std::string_view message = link.request.message();
      const std::string_view all(link.request.bytes.data(), link.request.bytes.size());
      nb::object under_way = link.waiting ? nb::object(bytes_of(message)) : nb::none();
      found.append(nb::make_tuple(link.number, under_way, bytes_of(all.substr(all.size() - link.unsent))));
      link.unsent = 0;
    }
    return found;
  }

  [[nodiscard]] double acting_s() const { return rollout_.acting_s(); }

 private:
  LinkedRollout make(NativePlan& plan, const std::vector<std::pair<std::size_t, std::uint64_t>>& servers,
                     std::size_t num_info, std::uint64_t seed, std::uint32_t stream) const {
    constexpr std::size_t num_arrays = 17;
    if (arrays_.size() != num_arrays) {
      throw std::invalid_argument("arrays must be the " + std::to_string(num_arrays) + " that MlpPlan.rollout takes");
    }
    const SlabArrays given{arrays_[0],  arrays_[1],  arrays_[2],  arrays_[3],  arrays_[4],  arrays_[5],
                           arrays_[6],  arrays_[7],  arrays_[8],  arrays_[9],  arrays_[10], arrays_[11],
                           arrays_[12], arrays_[13], arrays_[14], arrays_[15], arrays_[16], rows_};
    const std::size_t action = plan.num_actions() * (plan.gaussian() ? sizeof(float) : sizeof(std::int64_t));
    std::vector<LinkedRows> links;
    std::size_t first = 0;
    for (const auto& [count, number] : servers) {
      links.push_back({static_cast<std::ptrdiff_t>(first), {count, plan.obs_size(), action, num_info}, number});
      first += count;
    }
    Slab slab = given.checked(first, num_info, plan.net(), plan.obs_size(), {nullptr, nullptr});
    slab.epsilon = epsilon_of(plan.net(), epsilon_, first);
    return {plan.plan(), slab, std::move(links), static_cast<std::ptrdiff_t>(first), seed, stream};
  }

  nb::object plan_;  ///< keeps it alive
  std::vector<ArrayOut> arrays_;
  ArrayIn rows_;
  OptionalArray epsilon_;
  LinkedRollout rollout_;
};

}  // namespace
}  // namespace shoal

void bind_remote(nb::module_& module) {
  using namespace shoal;
  nb::class_<Channel>(module, "Channel",
                      "A Unix socket of messages after their lengths, for calls that read and write many of them.")
      .def(nb::init<int>(), "socket"_a, "A descriptor, which is duplicated: it may be closed elsewhere meanwhile.")
      .def(
          "load", [](Channel& channel, nb::bytes data) { channel.load({data.c_str(), data.size()}); }, "data"_a,
          "As though these bytes had been received, and nothing else.")
      .def_prop_ro(
          "unread", [](const Channel& channel) { return bytes_of(channel.unread()); },
          "What was received and belongs to no message that was read.");
  module.def("serve_steps", &serve_steps, "pool"_a, "channel"_a, "number"_a, "spin_s"_a, "most_s"_a,
             nb::sig("def serve_steps(pool: Pool, channel: Channel, number: int, spin_s: float, most_s: float) -> "
                     "tuple[int, list[bytes], bytes, bool]"),
             "Answers requests to step all of the pool's rows, from number + 1 on, until something else comes, or "
             "nothing for spin_s, or about most_s seconds have passed.\n\nReturns the number of the last request that "
             "was answered; the last replies, four at most; the bytes at the end of the last frame that the client has "
             "not taken yet; whether it was ended as nothing came.");
  nb::class_<NativeLinked>(module, "LinkedRollout",
                           "A rollout of rows on servers: it acts, sends, waits and records in native code.")
      .def(nb::init<NativePlan&, const std::vector<std::pair<std::size_t, std::uint64_t>>&, std::size_t,
                    const std::vector<ArrayOut>&, std::uint64_t, std::uint32_t, const ArrayIn&, const OptionalArray&>(),
           "plan"_a, "servers"_a, "num_info"_a, "arrays"_a.noconvert(), "seed"_a, "stream"_a, "rows"_a.noconvert(),
           nb::kw_only(), "epsilon"_a.noconvert() = nb::none(),
           "servers: of each its rows and the number of the last request. num_info: numbers of each episode besides. "
           "arrays: from current_obs to drawn, as MlpPlan.rollout takes them.")
      .def("run", &NativeLinked::run, "channels"_a, "most_s"_a,
           "Goes on with a channel to each server. Returns -1 where all is done, -2 "
           "where about most_s seconds have passed, else the server whose stream something is to be done about.")
      .def("requests", &NativeLinked::requests, nb::sig("def requests(self) -> list[tuple[int, bytes | None, bytes]]"),
           "Of each server the number of the last request, the request if its reply has not come, and the bytes at the "
           "end of its frame that nobody has sent: whoever calls sends them.")
      .def("take", &NativeLinked::take, "server"_a, "data"_a, "at"_a, "size"_a, "final_at"_a, "final_size"_a,
           "The reply that a server's rows wait for, as `read_rows` found it.")
      .def_prop_ro("acting_s", &NativeLinked::acting_s, "Seconds of acting so far.");
}
