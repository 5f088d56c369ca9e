// shoal._native's replay memory: ReplayRings takes what rows did, a ReplayReader samples transitions from it.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include "bind/arrays.hpp"
#include "memory/insert.hpp"
#include "memory/prioritized.hpp"
#include "memory/rings.hpp"
#include "memory/samplable.hpp"
#include "memory/transitions.hpp"
#include "memory/uniform.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

using Sizes = std::vector<std::size_t>;
using Inputs = std::vector<ArrayIn>;
using Outputs = std::vector<ArrayOut>;

/// The bytes of an array [..., leaf] whose first axes are `batch`; ValueError where it has others, or gaps.
template <class Array>
auto leaf_bytes(const Array& array, const std::string& name, std::initializer_list<std::size_t> batch,
                std::size_t bytes) {
  using Byte = std::conditional_t<std::is_same_v<Array, ArrayIn>, const std::byte, std::byte>;
  bool fits = array.ndim() >= batch.size() && array.dtype().bits % 8 == 0;
  std::size_t count = 1;
  for (std::size_t i = 0; fits && i < batch.size(); ++i) {
    fits = array.shape(i) == batch.begin()[i];
    count *= array.shape(i);
  }
  if (!fits || array.nbytes() != count * bytes) {
    throw std::invalid_argument(name + " must have " + std::to_string(bytes) + " bytes for each of " +
                                shape_text(batch.begin(), batch.size()));
  }
  if (!is_contiguous(array)) throw std::invalid_argument(name + " must be contiguous");
  return reinterpret_cast<Byte*>(array.data());
}

std::string leaf_name(const char* name, std::size_t at) {
  std::string text = name;
  text += '[';
  text += std::to_string(at);
  text += ']';
  return text;
}

template <class Array>
auto leaves(const std::vector<Array>& arrays, const char* name, std::initializer_list<std::size_t> batch,
            const std::vector<RecordPart>& parts, std::size_t frames = 1) {
  using Byte = std::conditional_t<std::is_same_v<Array, ArrayIn>, const std::byte, std::byte>;
  if (arrays.size() != parts.size()) {
    throw std::invalid_argument(std::string(name) + " must be " + std::to_string(parts.size()) + " arrays, not " +
                                std::to_string(arrays.size()));
  }
  std::vector<Byte*> found;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    found.push_back(leaf_bytes(arrays[i], leaf_name(name, i), batch, frames * parts[i].bytes));
  }
  return found;
}

/// The bytes of the masks; null where actions are not masked.
template <class Array>
auto mask_bytes(const std::optional<Array>& mask, const char* name, std::initializer_list<std::size_t> batch,
                const RecordPart& part) {
  using Flag = std::conditional_t<std::is_same_v<Array, ArrayIn>, const std::uint8_t, std::uint8_t>;
  if (mask.has_value() != (part.bytes > 0)) {
    throw std::invalid_argument(std::string(name) + (part.bytes > 0 ? " is missing" : ": these actions have no masks"));
  }
  return mask ? reinterpret_cast<Flag*>(leaf_bytes(*mask, name, batch, part.bytes)) : nullptr;
}

/// `_native.ReplayRings`: keeps the block alive.
class BoundRings {
 public:
  BoundRings(ArrayOut block, std::size_t num_rows, std::size_t slots, const Sizes& obs, const Sizes& action,
             std::size_t mask, std::uint64_t contents, std::size_t frames)
      : block_(std::move(block)),
        rings_(reinterpret_cast<std::byte*>(numbers<std::uint8_t>(block_, "block", {axis(block_, "block", 1, 0)})),
               block_.size(), num_rows, slots, RecordLayout(obs, action, mask, frames), contents),
        busy_(std::make_unique<std::atomic<bool>[]>(num_rows)) {}

  [[nodiscard]] const Rings& rings() const noexcept { return rings_; }

  std::size_t insert(std::size_t first_row, const Inputs& obs, const Inputs& action, const ArrayIn& reward,
                     const ArrayIn& terminated, const ArrayIn& truncated, const ArrayIn& valid, const ArrayIn& start,
                     const ArrayIn& version, const ArrayIn& final_index, const Inputs& final_obs,
                     const std::optional<ArrayIn>& mask, bool in_turns) {
    const RecordLayout& layout = rings_.layout();
    const std::size_t T = axis(reward, "reward", 2, 0);
    const std::size_t B = axis(reward, "reward", 2, 1);
    if (first_row > rings_.num_rows() || B > rings_.num_rows() - first_row) {
      throw std::invalid_argument("rows " + std::to_string(first_row) + " to " + std::to_string(first_row + B) +
                                  " are not among the memory's " + std::to_string(rings_.num_rows()));
    }
    const std::size_t num_final = final_obs.empty() || final_obs[0].ndim() == 0 ? 0 : final_obs[0].shape(0);
    const StepBlock block{T,
                          B,
                          leaves(obs, "obs", {T, B}, layout.obs, layout.frames),
                          leaves(action, "action", {T, B}, layout.action),
                          numbers<float>(reward, "reward", {T, B}),
                          numbers<std::uint8_t>(terminated, "terminated", {T, B}),
                          numbers<std::uint8_t>(truncated, "truncated", {T, B}),
                          numbers<std::uint8_t>(valid, "valid", {T, B}),
                          numbers<std::uint8_t>(start, "start", {T, B}),
                          numbers<std::int32_t>(version, "version", {T, B}),
                          numbers<std::int32_t>(final_index, "final_index", {T, B}),
                          leaves(final_obs, "final_obs", {num_final}, layout.obs, layout.frames),
                          num_final,
                          mask_bytes(mask, "action_mask", {T, B}, layout.mask),
                          in_turns};
    const nb::gil_scoped_release released;
    const Claim claim(busy_.get(), first_row, B);
    return Insertion(rings_, block, first_row).run();
  }

 private:
  /// Rows that a call writes to.
  class Claim {
   public:
    Claim(std::atomic<bool>* busy, std::size_t first, std::size_t count) : busy_(busy), first_(first), end_(first) {
      for (; end_ < first + count; ++end_) {
        if (busy_[end_].exchange(true, std::memory_order_acquire)) {
          const std::size_t taken = end_;
          free();
          throw std::runtime_error("insert: another thread is inserting steps of row " + std::to_string(taken) +
                                   "; one at a time may");
        }
      }
    }
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;
    ~Claim() { free(); }

   private:
    void free() noexcept {
      for (std::size_t row = first_; row < end_; ++row) busy_[row].store(false, std::memory_order_release);
    }

    std::atomic<bool>* busy_;
    std::size_t first_;
    std::size_t end_;
  };

  ArrayOut block_;
  Rings rings_;
  std::unique_ptr<std::atomic<bool>[]> busy_;
};

/// `_native.ReplayReader`: keeps the arrays alive that it writes to; the rings are kept by Python.
class BoundReader {
 public:
  BoundReader(const BoundRings& rings, std::size_t batch, std::uint64_t n, double gamma, std::uint64_t seed,
              bool checked, const Sizes& ends, const std::vector<double>& shares, double recency)
      : rings_(rings.rings()),
        batch_(batch),
        random_(seed),
        reader_(rings_, n, gamma, checked),
        mixing_(Mixing::of(rings_.num_rows(), ends, shares, recency)),
        uniform_(rings_, reader_, mixing_) {
    if (batch < 1 || batch > most) {
      throw std::invalid_argument("batch_size must be between 1 and 2^24, not " + std::to_string(batch));
    }
    if (n < 1 || n >= rings_.slots()) {
      throw std::invalid_argument("n_step must be between 1 and " + std::to_string(rings_.slots() - 1) +
                                  ", one less than the slots of a row, not " + std::to_string(n));
    }
    if (!(gamma >= 0.0 && gamma <= 1.0)) {
      throw std::invalid_argument("gamma must be between 0 and 1, not " + std::to_string(gamma));
    }
  }

  void attach(const Outputs& obs, const Outputs& next_obs, const Outputs& action, const std::optional<ArrayOut>& mask,
              const std::optional<ArrayOut>& next_mask, const ArrayOut& reward, const ArrayOut& discount,
              const ArrayOut& steps, const ArrayOut& version, const ArrayOut& weight, const ArrayOut& error,
              const ArrayOut& key) {
    const std::size_t B = batch_;
    const RecordLayout& layout = rings_.layout();
    const InUse use(in_use_);
    const TransitionArrays out{leaves(obs, "obs", {B}, layout.obs, layout.frames),
                               leaves(next_obs, "next_obs", {B}, layout.obs, layout.frames),
                               leaves(action, "action", {B}, layout.action),
                               mask_bytes(mask, "action_mask", {B}, layout.mask),
                               mask_bytes(next_mask, "next_action_mask", {B}, layout.mask),
                               numbers<float>(reward, "reward", {B}),
                               numbers<float>(discount, "discount", {B}),
                               numbers<std::int32_t>(steps, "steps", {B}),
                               numbers<std::int32_t>(version, "version", {B}),
                               numbers<float>(weight, "weight", {B}),
                               numbers<float>(error, "error", {B}),
                               numbers<std::int64_t>(key, "key", {B})};
    held_arrays_ = {reward, discount, steps, version, weight, error, key};
    for (const Outputs* group : {&obs, &next_obs, &action}) {
      held_arrays_.insert(held_arrays_.end(), group->begin(), group->end());
    }
    if (mask) held_arrays_.push_back(*mask);
    if (next_mask) held_arrays_.push_back(*next_mask);
    out_ = out;
  }

  /// From now on steps are drawn by priorities.
  void prioritize_by(double alpha, double epsilon, double uniform) {
    const InUse use(in_use_);
    check_alpha(alpha);
    if (!(epsilon >= 1e-12 && epsilon <= 1e6) || !(uniform >= 0.0 && uniform <= 1.0)) {
      throw std::invalid_argument("epsilon must be between 1e-12 and 1e6, and uniform_mix between 0 and 1, not " +
                                  std::to_string(epsilon) + " and " + std::to_string(uniform));
    }
    if (mixing_.recency > 1.0) throw std::invalid_argument("recency is of steps that are drawn without priorities");
    epsilon_ = epsilon;
    prioritized_.emplace(rings_, reader_, mixing_, alpha, uniform);
  }

  bool sample_prioritized(double alpha, double beta, std::optional<std::size_t> count) {
    const InUse use(in_use_);
    const std::size_t batch = checked(count);
    check_alpha(alpha);
    if (!(beta >= 0.0 && beta <= most_power)) {
      throw std::invalid_argument("beta must be between 0 and 4, not " + std::to_string(beta));
    }
    if (!out_) throw std::runtime_error("sample_prioritized: call attach first");
    PrioritizedSampler& sampler = prioritized();
    const nb::gil_scoped_release released;
    std::fill_n(out_->error, batch, 0.0F);
    sampler.priorities().set_alpha(alpha);
    return sampler.fill(*out_, batch, beta, random_);
  }

  /// How many keys are by now of records that were overwritten since the reader was made.
  std::uint64_t prioritize(const ArrayIn& keys, const ArrayIn& errors) {
    const InUse use(in_use_);
    const std::size_t count = axis(keys, "keys", 1, 0);
    const std::span<const std::int64_t> key(numbers<std::int64_t>(keys, "keys", {count}), count);
    const std::span<const float> error(numbers<float>(errors, "errors", {count}), count);
    Priorities& priorities = prioritized().priorities();
    const nb::gil_scoped_release released;
    priorities.update(key, error, epsilon_);
    return priorities.stale();
  }

  [[nodiscard]] nb::tuple priorities() {
    const InUse use(in_use_);
    const Priorities& own = prioritized().priorities();
    return nb::make_tuple(copied(own.raw()), copied(own.seen()), own.most(), own.stale());
  }

  void set_priorities(const ArrayIn& raw, const ArrayIn& seen, float most, std::uint64_t stale) {
    const InUse use(in_use_);
    const std::size_t slots = axis(raw, "priorities", 1, 0);
    const std::size_t rows = axis(seen, "seen", 1, 0);
    prioritized().priorities().restore({numbers<float>(raw, "priorities", {slots}), slots},
                                       {numbers<std::uint64_t>(seen, "seen", {rows}), rows}, most, stale);
  }

  /// False where nothing can be sampled.
  bool sample(std::optional<std::size_t> count) {
    const InUse use(in_use_);
    const std::size_t batch = checked(count);
    if (!out_) throw std::runtime_error("sample: call attach first");
    const nb::gil_scoped_release released;
    std::fill_n(out_->error, batch, 0.0F);
    std::fill_n(out_->weight, batch, 1.0F);
    return uniform_.fill(*out_, batch, random_);
  }

  /// What all that can be drawn weighs, and how many steps it is: of one memory among several.
  [[nodiscard]] std::pair<double, std::uint64_t> mass() {
    const InUse use(in_use_);
    if (prioritized_) return {prioritized_->mass(), prioritized_->count()};
    if (!samplable_) samplable_.emplace(rings_, reader_);
    const std::uint64_t count = samplable_->count();
    return {static_cast<double>(count), count};
  }

  [[nodiscard]] double least_chance() {
    const InUse use(in_use_);
    return prioritized().least();
  }

  [[nodiscard]] std::uint64_t overwritten() const noexcept { return reader_.overwritten(); }

  [[nodiscard]] std::vector<std::uint64_t> random() const {
    const auto low = [](uint128 number) { return static_cast<std::uint64_t>(number); };
    return {low(random_.state >> 64), low(random_.state), low(random_.increment >> 64),
            low(random_.increment),   random_.half,       random_.has_half};
  }

  void set_random(const std::vector<std::uint64_t>& words) {
    const InUse use(in_use_);
    Pcg64 random;
    if (words.size() == 6) {
      random.state = static_cast<uint128>(words[0]) << 64 | words[1];
      random.increment = static_cast<uint128>(words[2]) << 64 | words[3];
      random.half = words[4];
      random.has_half = words[5];
    }
    if (words.size() != 6 || !random.valid()) throw std::invalid_argument("this is no state of a random generator");
    random_ = random;
  }

 private:
  static constexpr std::size_t most = std::size_t{1} << 24;
  static constexpr double most_power = 4.0;

  static void check_alpha(double alpha) {
    if (!(alpha >= 0.0 && alpha <= most_power)) {
      throw std::invalid_argument("alpha must be between 0 and 4, not " + std::to_string(alpha));
    }
  }

  /// So many transitions, or a whole batch.
  [[nodiscard]] std::size_t checked(std::optional<std::size_t> count) const {
    const std::size_t batch = count.value_or(batch_);
    if (batch < 1 || batch > batch_) {
      throw std::invalid_argument("count must be between 1 and batch_size=" + std::to_string(batch_) + ", not " +
                                  std::to_string(batch));
    }
    return batch;
  }

  PrioritizedSampler& prioritized() {
    if (!prioritized_) throw std::runtime_error("this reader has no priorities");
    return *prioritized_;
  }

  template <class T>
  static nb::object copied(const std::vector<T>& numbers) {
    auto made = std::make_unique<std::vector<T>>(numbers);
    T* const data = made->data();
    const std::size_t size = made->size();
    const nb::capsule owner(made.get(), [](void* held) noexcept { delete static_cast<std::vector<T>*>(held); });
    static_cast<void>(made.release());
    return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, {size}, owner));
  }

  class InUse {
   public:
    explicit InUse(std::atomic_flag& flag) : flag_(flag) {
      if (flag_.test_and_set(std::memory_order_acquire)) {
        throw std::runtime_error("another thread is using this reader; make one for each thread");
      }
    }
    InUse(const InUse&) = delete;
    InUse& operator=(const InUse&) = delete;
    ~InUse() { flag_.clear(std::memory_order_release); }

   private:
    std::atomic_flag& flag_;
  };

  const Rings& rings_;
  std::size_t batch_;
  Pcg64 random_;
  TransitionReader reader_;
  Mixing mixing_;
  UniformSampler uniform_;
  std::optional<PrioritizedSampler> prioritized_;
  std::optional<Samplable> samplable_;  ///< made when it is asked for
  double epsilon_ = 0.0;
  std::vector<ArrayOut> held_arrays_;
  std::optional<TransitionArrays> out_;
  std::atomic_flag in_use_;
};

std::size_t ring_bytes(std::size_t num_rows, std::size_t slots, const Sizes& obs, const Sizes& action,
                       std::size_t mask) {
  return Rings::bytes(num_rows, slots, RecordLayout(obs, action, mask));
}

}  // namespace
}  // namespace shoal

void bind_replay(nb::module_& module) {
  using shoal::BoundReader;
  using shoal::BoundRings;
  nb::class_<BoundRings>(module, "ReplayRings",
                         "A ring of records for each row, in a block of bytes that processes may share.\n\n"
                         "A row has one writer at a time; any number of readers.")
      .def(nb::init<shoal::ArrayOut, std::size_t, std::size_t, const shoal::Sizes&, const shoal::Sizes&, std::size_t,
                    std::uint64_t, std::size_t>(),
           "block"_a.noconvert(), "num_rows"_a, "slots"_a, "obs_bytes"_a, "action_bytes"_a, "mask_bytes"_a,
           "contents"_a, "frames"_a = 1,
           "A block of zeros becomes an empty memory. ValueError where it holds another memory than this; `contents`: "
           "a hash of what its records mean; `frames`: observations are stacks of so many, and `obs_bytes` of one.")
      .def_static("bytes", &shoal::ring_bytes, "num_rows"_a, "slots"_a, "obs_bytes"_a, "action_bytes"_a, "mask_bytes"_a,
                  "Bytes of the block.")
      .def_prop_ro(
          "stride", [](const BoundRings& self) { return self.rings().stride(); },
          "Words of 8 bytes of a slot: its sequence number, and the record.")
      .def("insert", &BoundRings::insert, "first_row"_a, "obs"_a.noconvert(), "action"_a.noconvert(),
           "reward"_a.noconvert(), "terminated"_a.noconvert(), "truncated"_a.noconvert(), "valid"_a.noconvert(),
           "start"_a.noconvert(), "version"_a.noconvert(), "final_index"_a.noconvert(), "final_obs"_a.noconvert(),
           "action_mask"_a.noconvert().none(), nb::kw_only(), "in_turns"_a,
           "Append the valid steps of arrays [T, B, ...] to the rings of B rows; returns how many.\n\n"
           "ValueError, with nothing stored, where a reward is not finite or an end has no final observation.");
  nb::class_<BoundReader>(module, "ReplayReader", "Samples transitions of n steps from a memory.")
      .def(nb::init<const BoundRings&, std::size_t, std::uint64_t, double, std::uint64_t, bool, const shoal::Sizes&,
                    const std::vector<double>&, double>(),
           nb::keep_alive<1, 2>(), "rings"_a, "batch_size"_a, "n_step"_a, "gamma"_a, "seed"_a, nb::kw_only(),
           "checked"_a = true, "block_ends"_a = shoal::Sizes(), "shares"_a = std::vector<double>(), "recency"_a = 1.0,
           "`block_ends`, `shares`: blocks of rows that end before these, each with its share of a batch; `recency`: "
           "k, where P(age <= x) = x^(1/k) of a row's steps.")
      .def("attach", &BoundReader::attach, "obs"_a.noconvert(), "next_obs"_a.noconvert(), "action"_a.noconvert(),
           "action_mask"_a.noconvert().none(), "next_action_mask"_a.noconvert().none(), "reward"_a.noconvert(),
           "discount"_a.noconvert(), "steps"_a.noconvert(), "version"_a.noconvert(), "weight"_a.noconvert(),
           "error"_a.noconvert(), "key"_a.noconvert(),
           "Keep these arrays [batch_size, ...] and write every sample to them.")
      .def("sample", &BoundReader::sample, "count"_a.none() = nb::none(),
           "Write a batch, or its first `count` transitions; False where no step can be sampled yet.")
      .def("prioritize_by", &BoundReader::prioritize_by, "alpha"_a, "epsilon"_a, "uniform_mix"_a,
           "Draw steps by priorities from now on: of those that are sampled first, 1.")
      .def("sample_prioritized", &BoundReader::sample_prioritized, "alpha"_a, "beta"_a, "count"_a.none() = nb::none(),
           "Write a batch that is drawn by priorities, or `count` transitions, with their weights; False where no step "
           "can be sampled yet.")
      .def("prioritize", &BoundReader::prioritize, "keys"_a.noconvert(), "errors"_a.noconvert(),
           "Make |error| + epsilon the priority of each key; returns how many keys were of overwritten records so "
           "far.\n\n"
           "ValueError, with nothing changed, where an error is not finite or a key of no sampled transition.")
      .def_prop_ro("priorities", &BoundReader::priorities,
                   "Copies of the priority of every slot and of each row's records that were looked at, the greatest "
                   "priority so far, and the number of stale keys.")
      .def("set_priorities", &BoundReader::set_priorities, "priorities"_a.noconvert(), "seen"_a.noconvert(), "most"_a,
           "stale"_a, "Continue from what `priorities` gave; ValueError where it is of another memory.")
      .def_prop_ro("mass", &BoundReader::mass,
                   "What the steps that can be sampled weigh together (the sum of priorities^alpha; their number where "
                   "all are as likely), and how many they are.")
      .def_prop_ro("least_chance", &BoundReader::least_chance,
                   "The least probability of the last batch that was drawn by priorities, that of its greatest weight.")
      .def_prop_ro("overwritten", &BoundReader::overwritten,
                   "How many times a record was drawn again because a writer was faster.")
      .def_prop_rw("random", &BoundReader::random, &BoundReader::set_random, "The state of the random numbers.");
}
