// shoal._native.StepRecorder: what lies between two steps of rows that Python steps, in one call each: acting, and
// recording.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "bind/arrays.hpp"
#include "bind/plan.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

/// Who acts, and the slab [T, B, ...] that keeps it. The arrays stay their owner's; references to them are kept.
class StepRecorder {
 public:
  StepRecorder(NativePlan& plan, ArrayOut obs, ArrayOut start, ArrayOut action, ArrayOut log_prob, ArrayOut value,
               ArrayOut reward, ArrayOut terminated, ArrayOut truncated, ArrayOut valid, ArrayOut version,
               ArrayOut current_start, ArrayOut row_step, ArrayIn rows, std::uint64_t seed, std::uint32_t stream,
               OptionalArray epsilon)
      : plan_(nb::find(plan)),
        native_(plan),
        kept_{obs,        start,     action, log_prob, value,         reward,
              terminated, truncated, valid,  version,  current_start, row_step},
        rows_array_(rows),
        epsilon_array_(epsilon),
        T_(axis(reward, "reward", 2, 0)),
        B_(axis(reward, "reward", 2, 1)),
        D_(plan.obs_size()),
        K_(plan.num_actions()),
        wide_(obs.dtype() == nb::dtype<double>() ? numbers<double>(obs, "obs", {T_, B_, D_}) : nullptr),
        obs_(wide_ != nullptr ? nullptr : numbers<float>(obs, "obs", {T_, B_, D_})),
        narrowed_(wide_ != nullptr ? B_ * D_ : 0),
        start_(numbers<std::uint8_t>(start, "start", {T_, B_})),
        choice_(plan.gaussian() ? nullptr : numbers<std::int64_t>(action, "action", {T_, B_, K_})),
        action_(plan.gaussian() ? numbers<float>(action, "action", {T_, B_, K_}) : nullptr),
        log_prob_(numbers<float>(log_prob, "log_prob", {T_, B_})),
        value_(numbers<float>(value, "value", {T_, B_})),
        reward_(numbers<float>(reward, "reward", {T_, B_})),
        terminated_(numbers<std::uint8_t>(terminated, "terminated", {T_, B_})),
        truncated_(numbers<std::uint8_t>(truncated, "truncated", {T_, B_})),
        valid_(numbers<std::uint8_t>(valid, "valid", {T_, B_})),
        version_(numbers<std::int32_t>(version, "version", {T_, B_})),
        current_start_(numbers<std::uint8_t>(current_start, "current_start", {B_})),
        row_step_(numbers<std::int64_t>(row_step, "row_step", {B_})),
        noise_{seed,
               checked_stream(stream),
               numbers<std::int64_t>(rows, "rows", {B_}),
               row_step_,
               false,
               epsilon_of(plan.net(), epsilon, B_)} {}

  void see(ArrayIn obs) {
    const void* seen = nullptr;
    if (wide_ != nullptr) {
      seen = numbers<double>(obs, "obs", {B_, D_});
    } else {
      seen = numbers<float>(obs, "obs", {B_, D_});
    }
    seen_ = seen;
    seen_array_ = std::move(obs);
  }

  void watch(ArrayIn reward, ArrayIn terminated, ArrayIn truncated, ArrayIn valid) {
    const auto* rewards = numbers<double>(reward, "reward", {B_});
    const auto* over = numbers<std::uint8_t>(terminated, "terminated", {B_});
    const auto* cut = numbers<std::uint8_t>(truncated, "truncated", {B_});
    const auto* counts = numbers<std::uint8_t>(valid, "valid", {B_});
    rewards_ = rewards;
    over_ = over;
    cut_ = cut;
    counts_ = counts;
    watched_[0] = std::move(reward);
    watched_[1] = std::move(terminated);
    watched_[2] = std::move(truncated);
    watched_[3] = std::move(valid);
  }

  void act(Size t, std::int32_t version) {
    check(t, seen_, "see");
    const Size at = t * B_;
    const float* const obs = keep_seen(at);
    std::copy_n(current_start_, B_, start_ + at);
    std::fill_n(version_ + at, B_, version);
    const ActOut out{choice_ == nullptr ? nullptr : choice_ + at * K_, action_ == nullptr ? nullptr : action_ + at * K_,
                     log_prob_ + at, value_ + at};
    {
      const nb::gil_scoped_release released;
      native_.plan().act(obs, static_cast<std::ptrdiff_t>(B_), noise_, nullptr, out);
    }
    std::for_each_n(row_step_, B_,
                    [](std::int64_t& step) { step = static_cast<std::int64_t>(static_cast<std::uint64_t>(step) + 1); });
  }

  bool record(Size t) {
    check(t, rewards_, "watch");
    const auto is_set = [](std::uint8_t flag) { return flag != 0; };
    if (std::any_of(over_, over_ + B_, is_set) || std::any_of(cut_, cut_ + B_, is_set) ||
        !std::all_of(counts_, counts_ + B_, is_set)) {
      return false;
    }
    const Size at = t * B_;
    std::transform(rewards_, rewards_ + B_, reward_ + at, [](double reward) { return static_cast<float>(reward); });
    std::fill_n(terminated_ + at, B_, std::uint8_t{0});
    std::fill_n(truncated_ + at, B_, std::uint8_t{0});
    std::fill_n(valid_ + at, B_, std::uint8_t{1});
    std::fill_n(current_start_, B_, std::uint8_t{0});
    return true;
  }

 private:
  /// Writes what the rows see into the slab, from step `at` on; the same as the plan reads it.
  const float* keep_seen(Size at) {
    if (wide_ == nullptr) {
      return std::copy_n(static_cast<const float*>(seen_), B_ * D_, obs_ + at * D_) - B_ * D_;
    }
    const auto* seen = static_cast<const double*>(seen_);
    std::copy_n(seen, B_ * D_, wide_ + at * D_);
    std::transform(seen, seen + B_ * D_, narrowed_.begin(), [](double x) { return static_cast<float>(x); });
    return narrowed_.data();
  }

  void check(Size t, const void* given, const char* what) const {
    if (t >= T_) {
      throw std::invalid_argument("t must lie below " + std::to_string(T_) + ", not " + std::to_string(t));
    }
    if (given == nullptr) {
      throw std::runtime_error(std::string("call ") + what + " first");
    }
  }

  nb::object plan_;  ///< keeps it alive
  NativePlan& native_;
  ArrayOut kept_[12];
  ArrayIn rows_array_;
  OptionalArray epsilon_array_;
  ArrayIn seen_array_;
  ArrayIn watched_[4];
  Size T_, B_, D_, K_;
  double* wide_;  ///< the slab's observations where they are float64
  float* obs_;
  std::vector<float> narrowed_;  ///< what the rows see, where they are
  std::uint8_t* start_;
  std::int64_t* choice_;
  float *action_, *log_prob_, *value_, *reward_;
  std::uint8_t *terminated_, *truncated_, *valid_;
  std::int32_t* version_;
  std::uint8_t* current_start_;
  std::int64_t* row_step_;
  Noise noise_;
  const void* seen_ = nullptr;
  const double* rewards_ = nullptr;
  const std::uint8_t *over_ = nullptr, *cut_ = nullptr, *counts_ = nullptr;
};

}  // namespace
}  // namespace shoal

void bind_stepping(nb::module_& module) {
  using namespace shoal;
  nb::class_<StepRecorder>(
      module, "StepRecorder",
      "Acts for rows that Python steps, and records their steps in a slab of T steps: one call each.")
      .def(nb::init<NativePlan&, ArrayOut, ArrayOut, ArrayOut, ArrayOut, ArrayOut, ArrayOut, ArrayOut, ArrayOut,
                    ArrayOut, ArrayOut, ArrayOut, ArrayOut, ArrayIn, std::uint64_t, std::uint32_t, OptionalArray>(),
           "plan"_a, "obs"_a.noconvert(), "start"_a.noconvert(), "action"_a.noconvert(), "log_prob"_a.noconvert(),
           "value"_a.noconvert(), "reward"_a.noconvert(), "terminated"_a.noconvert(), "truncated"_a.noconvert(),
           "valid"_a.noconvert(), "version"_a.noconvert(), "current_start"_a.noconvert(), "row_step"_a.noconvert(),
           "rows"_a.noconvert(), "seed"_a, "stream"_a, "epsilon"_a.noconvert() = nb::none(),
           "The slab's arrays [T, B, ...], observations float32 or float64; current_start and row_step [B] are those "
           "of the rows and advance; rows, "
           "seed, stream and epsilon are those of the noise, as in MlpPlan.act.")
      .def("see", &StepRecorder::see, "obs"_a.noconvert(),
           "What the rows see [B, D], of the slab's own type, is read there at every act from now on.")
      .def("watch", &StepRecorder::watch, "reward"_a.noconvert(), "terminated"_a.noconvert(), "truncated"_a.noconvert(),
           "valid"_a.noconvert(),
           "What a step comes to [B], rewards as float64, is read there at every record from now on.")
      .def("act", &StepRecorder::act, "t"_a, "version"_a,
           "Writes step t of the slab: what the rows see, and what the plan chooses, as this version; counts row_step "
           "up.")
      .def("record", &StepRecorder::record, "t"_a,
           "Writes what step t came to. False and nothing written where an episode ended or a step is not valid.");
}
