// What a fused loss is: a struct in native/losses/ whose lane functions give the loss's derivatives beside its sums.
//
// One header = one loss, found by a glob. It is compiled into the kernels of every instruction set, so it computes with
// Vec, a vector of samples. The names that it declares are those that Python uses: of the torch function that it equals
// (`name`), of the float32 arrays that it reads for each sample (Columns), of its numbers (Settings; a bool is 0 or 1)
// and of the means that it reports (Stats). Each of these three structs lists its members' names in their order.
#pragma once

#include <concepts>
#include <stdexcept>
#include <string_view>
#include <type_traits>

#include "net/functions.hpp"
#include "net/minibatch.hpp"

namespace shoal::SHOAL_ISA {

/// Derivatives of a sample's loss, times its weight, with respect to its action's log-probability and to the entropy.
struct ActorSlope {
  Vec log_prob;
  Vec entropy;
};

/// Derivative of a sample's loss, times its weight, with respect to the value of its action; and its error, unweighted.
struct ValueSlope {
  Vec value;
  Vec error;
};

/// How many members a struct of `names` has.
template <class Record>
constexpr int size_of_record = static_cast<int>(std::extent_v<std::remove_cvref_t<decltype(Record::names)>>);

/// The place of a member among a struct's names.
template <class Record>
consteval int place_of(std::string_view name) {
  for (int i = 0; i < size_of_record<Record>; ++i) {
    if (name == Record::names[i]) {
      return i;
    }
  }
  throw std::invalid_argument("there is no member of that name");
}

/// A struct of members of type T, and their names.
template <class Record, class T>
concept RecordOf = std::is_trivially_copyable_v<Record> && requires {
  { Record::names[0] } -> std::convertible_to<const char*>;
} && sizeof(Record) == sizeof(T) * static_cast<std::size_t>(size_of_record<Record>);

template <class L>
concept HasName = requires {
  { L::name } -> std::convertible_to<const char*>;
};
template <class L>
concept HasColumns = RecordOf<typename L::Columns, Vec>;
template <class L>
concept HasSettings = RecordOf<typename L::Settings, float> && requires(const typename L::Settings& settings) {
  { L{settings} } noexcept;
};
template <class L>
concept HasStats = RecordOf<typename L::Stats, Vec>;
template <class L>
concept HasActor = requires(const L loss, Vec x, const typename L::Columns& in, typename L::Stats& sums) {
  { loss.actor(x, x, x, in, sums) } noexcept -> std::same_as<ActorSlope>;
};
template <class L>
concept HasCritic = requires(const L loss, Vec x, const typename L::Columns& in, typename L::Stats& sums) {
  { loss.critic(x, x, in, sums) } noexcept -> std::same_as<Vec>;
};

template <class L>
concept HasChosen = requires(const L loss, Vec x, const typename L::Columns& in, typename L::Stats& sums) {
  { loss.chosen(x, x, in, sums) } noexcept -> std::same_as<ValueSlope>;
};

/// A loss of a policy and its value function, or (`chosen`) of a Q-network. It is made from its settings; `weight` is 1
/// / (the minibatch's size), and 0 in lanes that hold no sample: it belongs into each sum and each derivative.
template <class L>
concept FusedLoss = std::is_trivially_copyable_v<L> && HasName<L> && HasColumns<L> && HasSettings<L> && HasStats<L> &&
                    (HasChosen<L> || (HasActor<L> && HasCritic<L>));

/// Optional: a look at the whole minibatch before its samples are met.
template <class L>
concept HasPrepare = requires(L loss, const Minibatch& batch) {
  { loss.prepare(batch) } noexcept -> std::same_as<void>;
};

/// Optional: the smallest minibatch under these settings, where that is not 1.
template <class L>
concept HasLeastSamples = requires(const L loss) {
  { loss.least_samples() } noexcept -> std::same_as<int>;
};

/// Fails to compile with the name of what a loss lacks.
template <class L>
consteval bool require_fused_loss() {
  static_assert(HasName<L>, "concept shoal::FusedLoss: `static constexpr const char* name` is missing");
  static_assert(
      HasColumns<L>,
      "concept shoal::FusedLoss: `struct Columns` of Vec with `static constexpr const char* names[]`, one for "
      "each member, is missing");
  static_assert(HasSettings<L>,
                "concept shoal::FusedLoss: `struct Settings` of float with `static constexpr const char* names[]`, one "
                "for each member, is missing, or the loss cannot be made from it without throwing");
  static_assert(HasStats<L>,
                "concept shoal::FusedLoss: `struct Stats` of Vec with `static constexpr const char* names[]`, one for "
                "each member, is missing");
  static_assert(
      HasChosen<L> || HasActor<L>,
      "concept shoal::FusedLoss: `ActorSlope actor(Vec weight, Vec log_prob, Vec entropy, const Columns&, "
      "Stats&) const noexcept` is missing, or for a loss of a Q-network `ValueSlope chosen(Vec weight, Vec value, "
      "const Columns&, Stats&) const noexcept`");
  static_assert(HasChosen<L> || HasCritic<L>,
                "concept shoal::FusedLoss: `Vec critic(Vec weight, Vec value, const Columns&, Stats&) const noexcept` "
                "is missing");
  if constexpr (requires { &L::prepare; }) {
    static_assert(HasPrepare<L>, "concept shoal::HasPrepare: `void prepare(const Minibatch&) noexcept` is expected");
  }
  if constexpr (requires { &L::least_samples; }) {
    static_assert(HasLeastSamples<L>,
                  "concept shoal::HasLeastSamples: `int least_samples() const noexcept` is expected");
  }
  static_assert(std::is_trivially_copyable_v<L>, "concept shoal::FusedLoss: the loss must be trivially copyable");
  return FusedLoss<L>;
}

}  // namespace shoal::SHOAL_ISA
