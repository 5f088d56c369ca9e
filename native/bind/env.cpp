// shoal._native's environments: env_ids, env_info, add_environments and Pool.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bind/draws.hpp"
#include "bind/given.hpp"
#include "bind/native.hpp"
#include "core/extension.hpp"
#include "environment_headers.inc"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

#define SHOAL_ENVIRONMENT(type) entry_of<type>(),
constexpr Entry built_in[] = {
#include "environments.inc"
};
#undef SHOAL_ENVIRONMENT

/// Those of this build and those that were added, under the interpreter's lock.
std::vector<Entry>& all_entries() {
  static std::vector<Entry> all(std::begin(built_in), std::end(built_in));
  return all;
}

std::vector<std::string> env_ids() {
  std::vector<std::string> ids;
  for (const Entry& entry : all_entries()) {
    ids.emplace_back(entry.info().id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

const Entry& find_entry(std::string_view id) {
  for (const Entry& entry : all_entries()) {
    if (entry.info().id == id) {
      return entry;
    }
  }
  std::string known;
  for (const std::string& name : env_ids()) {
    known += (known.empty() ? "" : ", ") + name;
  }
  throw std::invalid_argument("no native environment '" + std::string(id) + "'; there are " + known);
}

/// The ids that an extension module adds; those that it has added before are left as they are.
std::vector<std::string> add_environments(const nb::capsule& capsule) {
  const char* name = capsule.name();
  if (name == nullptr || std::string_view(name) != Extension::capsule) {
    throw std::invalid_argument("add_environments takes a capsule of the name shoal.environments");
  }
  const auto& extension = *static_cast<const Extension*>(capsule.data());
  if (std::string_view(extension.stamp) != core_stamp) {
    throw std::invalid_argument("it was built against the headers of another shoal (" + std::string(extension.stamp) +
                                "; this one is " + core_stamp + "): build it again, with this one installed");
  }
  auto& all = all_entries();
  const std::span<const Entry> given(extension.entries, extension.num_entries);
  std::vector<std::string> ids;
  for (const Entry& entry : given) {
    const std::string_view id = entry.info().id;
    const auto known = std::ranges::find(all, id, [](const Entry& one) { return one.info().id; });
    if (known != all.end() && known->info != entry.info) {
      throw std::invalid_argument("there is an environment '" + std::string(id) + "' already");
    }
    ids.emplace_back(id);
  }
  for (const Entry& entry : given) {
    if (std::ranges::find(all, entry.info, &Entry::info) == all.end()) {
      all.push_back(entry);
    }
  }
  return ids;
}

nb::list list_of(std::span<const float> values) {
  nb::list list;
  for (const float value : values) {
    list.append(value);
  }
  return list;
}

nb::dict info_dict(std::string_view id) {
  const EnvInfo info = find_entry(id).info();
  nb::dict dict;
  dict["id"] = nb::str(info.id.data(), info.id.size());
  dict["obs_low"] = list_of(info.obs_low);
  dict["obs_high"] = list_of(info.obs_high);
  dict["discrete"] = info.num_actions > 0;
  if (info.num_actions > 0) {
    dict["num_actions"] = info.num_actions;
  } else {
    dict["action_low"] = list_of(info.action_low);
    dict["action_high"] = list_of(info.action_high);
  }
  dict["max_episode_steps"] = info.max_episode_steps;
  dict["reward_threshold"] = info.reward_threshold ? nb::object(nb::float_(*info.reward_threshold)) : nb::none();
  nb::dict params;
  for (const auto& [name, value] : info.params) {
    params[name.c_str()] = value;
  }
  dict["params"] = params;
  dict["num_agents"] = info.num_agents;
  return dict;
}

template <class T>
T* writable(const NativePool::Array& array, const char* name, const char* dtype, std::vector<std::size_t> shape) {
  require_array<T>(array, name, dtype, shape);
  return static_cast<T*>(array.data());
}

StepOut out_from(const StepOut& out, int row, int obs_size, int num_drawn) {
  const std::ptrdiff_t i = row;
  return {out.obs + i * obs_size,       out.reward + i,         out.terminated + i,     out.truncated + i,
          out.final_obs + i * obs_size, out.episode_return + i, out.episode_length + i, out.drawn + i * num_drawn};
}

}  // namespace

std::unique_ptr<Rows> make_rows(std::string_view id, int num_rows, const ParamMap& params,
                                const std::vector<Draw>& draws) {
  return find_entry(id).make(num_rows, params, draws);
}

NativePool::NativePool(std::string_view id, int num_rows, int num_threads, const ParamMap& params,
                       const std::vector<Draw>& draws, const Preprocessing& preprocessing)
    : rows_(make_rows(id, num_rows, params, draws)), team_(num_threads) {
  preprocessing.check(rows_->obs_size());
  if (!preprocessing.plain()) {
    rows_ = std::make_unique<PreprocessedRows>(std::move(rows_), preprocessing);
  }
}

void NativePool::attach(std::array<Array, 8> arrays) {
  const InUse in_use = use("attach");
  require_idle("attach");
  const auto rows = static_cast<std::size_t>(rows_->num_rows());
  const auto obs_size = static_cast<std::size_t>(rows_->obs_size());
  const StepOut out{
      writable<float>(arrays[0], "obs", "float32", {rows, obs_size}),
      writable<double>(arrays[1], "reward", "float64", {rows}),
      writable<std::uint8_t>(arrays[2], "terminated", "uint8 or bool", {rows}),
      writable<std::uint8_t>(arrays[3], "truncated", "uint8 or bool", {rows}),
      writable<float>(arrays[4], "final_obs", "float32", {rows, obs_size}),
      writable<double>(arrays[5], "episode_return", "float64", {rows}),
      writable<std::int64_t>(arrays[6], "episode_length", "int64", {rows}),
      writable<double>(arrays[7], "drawn", "float64", {rows, static_cast<std::size_t>(rows_->num_drawn())})};
  out_ = out;
  arrays_ = std::move(arrays);
}

void NativePool::require_idle(const char* what) const {
  for (const Flight& flight : flights_) {
    if (flight.count > 0) {
      throw std::runtime_error(std::string(what) + ": rows " + std::to_string(flight.first) + " to " +
                               std::to_string(flight.first + flight.count - 1) + " are in flight; call recv first");
    }
  }
}

void NativePool::reset(const ConstArray& seeds) {
  const InUse in_use = use("reset");
  require_idle("reset");
  if (out_.obs == nullptr) {
    throw std::runtime_error("reset: call attach first");
  }
  const auto rows = static_cast<std::size_t>(rows_->num_rows());
  require_array<std::uint64_t>(seeds, "seeds", "uint64", {rows});
  const nb::gil_scoped_release released;
  rows_->reset_rows(0, {static_cast<const std::uint64_t*>(seeds.data()), rows}, out_.obs);
  started_ = true;
}

void NativePool::restart(const ConstArray& seeds, const ConstArray& seeded, const ConstArray& going_on) {
  const InUse in_use = use("restart");
  require_idle("restart");
  if (!started_) {
    throw std::runtime_error("restart: call reset first");
  }
  if (rows_->num_agents() > 1) {
    throw std::runtime_error("restart: environments of several agents are only reset all at once");
  }
  const auto rows = static_cast<std::size_t>(rows_->num_rows());
  require_array<std::uint64_t>(seeds, "seeds", "uint64", {rows});
  require_array<std::uint8_t>(seeded, "seeded", "uint8 or bool", {rows});
  require_array<std::uint8_t>(going_on, "going_on", "uint8 or bool", {rows});
  for (int row = 0; row < rows_->num_rows(); ++row) {
    float* obs = out_from(out_, row, rows_->obs_size(), rows_->num_drawn()).obs;
    if (static_cast<const std::uint8_t*>(seeded.data())[row] != 0) {
      rows_->reset_rows(row, {static_cast<const std::uint64_t*>(seeds.data()) + row, 1}, obs);
    } else if (static_cast<const std::uint8_t*>(going_on.data())[row] != 0) {
      rows_->begin_row(row, obs);
    }
  }
}

NativePool::Flight& NativePool::flight(int slot) {
  if (slot < 0 || slot >= Team::num_slots) {
    throw std::invalid_argument("slot must be 0 or 1, not " + std::to_string(slot));
  }
  return flights_[static_cast<std::size_t>(slot)];
}

void NativePool::check_rows(int slot, int first, int count) const {
  if (!started_ || out_.obs == nullptr) {
    throw std::runtime_error("send: call attach and reset first");
  }
  if (first < 0 || count < 1 || count > rows_->num_rows() - first) {
    throw std::invalid_argument("send: " + std::to_string(count) + " rows from row " + std::to_string(first) +
                                " are out of range for a pool of " + std::to_string(rows_->num_rows()));
  }
  if (flights_[static_cast<std::size_t>(slot)].count > 0) {
    throw std::runtime_error("send: slot " + std::to_string(slot) + " is in flight; call recv first");
  }
  const int agents = rows_->num_agents();
  if (first % agents != 0 || count % agents != 0) {
    throw std::invalid_argument("send: rows " + std::to_string(first) + " to " + std::to_string(first + count - 1) +
                                " split an environment of " + std::to_string(agents) + " agents");
  }
  for (const Flight& other : flights_) {
    if (other.count > 0 && first < other.first + other.count && other.first < first + count) {
      throw std::runtime_error("send: rows " + std::to_string(other.first) + " to " +
                               std::to_string(other.first + other.count - 1) + " are in flight in the other slot");
    }
  }
}

void NativePool::check_actions(int first, int count, const ConstArray& actions) const {
  const auto rows = static_cast<std::size_t>(count);
  const auto size = static_cast<std::size_t>(rows_->action_size());
  if (rows_->discrete()) {
    std::vector<std::size_t> shape{rows};
    if (actions.ndim() == 2) {
      shape.push_back(1);
    }
    require_array<std::int64_t>(actions, "actions", "int64", shape);
  } else {
    require_array<float>(actions, "actions", "float32", {rows, size});
  }
  const int bad = rows_->bad_action(first, count, actions.data());
  if (bad < 0) {
    return;
  }
  std::string text = "row " + std::to_string(bad) + ": action ";
  const auto index = static_cast<std::size_t>(bad - first) * size;
  for (std::size_t j = 0; j < size; ++j) {
    text += rows_->discrete() ? std::to_string(static_cast<const std::int64_t*>(actions.data())[index])
                              : std::to_string(static_cast<const float*>(actions.data())[index + j]) + " ";
  }
  throw std::invalid_argument(text + " is outside the action space; nothing was stepped");
}

void NativePool::Flight::step(void* self, int task) noexcept {
  const auto& flight = *static_cast<const Flight*>(self);
  Rows& rows = *flight.pool->rows_;
  const int done = task * flight.rows_per_task;
  const int first = flight.first + done;
  const std::size_t bytes = rows.discrete() ? sizeof(std::int64_t) : sizeof(float);
  const auto* actions = static_cast<const std::byte*>(flight.actions) +
                        static_cast<std::size_t>(done) * static_cast<std::size_t>(rows.action_size()) * bytes;
  rows.step_rows(first, std::min(flight.rows_per_task, flight.count - done), actions,
                 out_from(flight.pool->out_, first, rows.obs_size(), rows.num_drawn()));
}

void NativePool::post(int slot, int first, int count, const void* actions) {
  // A few tasks a thread even out rows of unequal cost; a task is long against its hand-over, and of whole
  // environments.
  const int tasks = team_.num_threads() == 1 ? 1 : 4 * team_.num_threads();
  const int grain = std::lcm(rows_->grain(), rows_->num_agents());
  const int rows_per_task = std::max(1, (count + grain * tasks - 1) / (grain * tasks)) * grain;
  Flight& job = flight(slot);
  job.pool = this;
  job.first = first;
  job.count = count;
  job.rows_per_task = rows_per_task;
  job.actions = actions;
  team_.post(slot, (count + rows_per_task - 1) / rows_per_task, Flight::step, &job);
}

void NativePool::send(int slot, int first, int count, ConstArray actions) {
  const InUse in_use = use("send");
  Flight& job = flight(slot);
  check_rows(slot, first, count);
  check_actions(first, count, actions);
  job.kept = std::move(actions);
  post(slot, first, count, job.kept.data());
}

bool NativePool::ready() const noexcept {
  return started_ && out_.obs != nullptr &&
         std::ranges::all_of(flights_, [](const Flight& flight) { return flight.count == 0; });
}

void NativePool::step_all(const void* actions) {
  post(0, 0, rows_->num_rows(), actions);
  team_.wait(0);
  flights_[0].count = 0;
}

void NativePool::recv(int slot) {
  const InUse in_use = use("recv");
  Flight& job = flight(slot);
  if (job.count == 0) {
    throw std::runtime_error("recv: slot " + std::to_string(slot) + " is not in flight; call send first");
  }
  {
    const nb::gil_scoped_release released;
    team_.wait(slot);
  }
  job.count = 0;
  job.kept = {};
}

nb::ndarray<nb::numpy, std::uint8_t> NativePool::state() const {
  const InUse in_use = use("state");
  require_idle("state");
  const auto rows = static_cast<std::size_t>(rows_->num_rows());
  const std::size_t bytes = rows_->row_bytes();
  auto* data = new std::byte[rows * bytes];
  const nb::capsule owner(data, [](void* held) noexcept { delete[] static_cast<std::byte*>(held); });
  rows_->save_rows(0, rows_->num_rows(), data);
  return {data, {rows, bytes}, owner};
}

nb::ndarray<nb::numpy, std::uint8_t> NativePool::render(int row) const {
  const InUse in_use = use("render");
  require_idle("render");
  if (row < 0 || row >= rows_->num_rows()) {
    throw std::invalid_argument("render: row " + std::to_string(row) + " is out of range for a pool of " +
                                std::to_string(rows_->num_rows()));
  }
  const Frame frame = rows_->frame();
  if (frame.bytes() == 0) {
    throw std::invalid_argument("render: this environment cannot be rendered");
  }
  if (!started_) {
    throw std::runtime_error("render: call attach and reset first");
  }
  auto* rgb = new std::uint8_t[frame.bytes()];
  const nb::capsule owner(rgb, [](void* held) noexcept { delete[] static_cast<std::uint8_t*>(held); });
  rows_->render_row(row, {rgb, frame.bytes()});
  return {rgb, {static_cast<std::size_t>(frame.height), static_cast<std::size_t>(frame.width), 3}, owner};
}

std::vector<int> NativePool::restore(const ConstArray& bytes) {
  const InUse in_use = use("restore");
  require_idle("restore");
  if (out_.obs == nullptr) {
    throw std::runtime_error("restore: call attach first");
  }
  const bool fits = bytes.ndim() == 2 && rows_->fits(bytes.shape(1));
  const std::size_t row_bytes = fits ? bytes.shape(1) : rows_->row_bytes();
  require_array<std::uint8_t>(bytes, "state", "uint8", {static_cast<std::size_t>(rows_->num_rows()), row_bytes});
  const nb::gil_scoped_release released;
  started_ = false;
  auto cut = rows_->load_rows(0, rows_->num_rows(), static_cast<const std::byte*>(bytes.data()), row_bytes, out_);
  started_ = true;
  return cut;
}

}  // namespace shoal

namespace {

void bind_registry(nb::module_& module) {
  module.def("env_ids", &shoal::env_ids, "Ids of the native environments, those that were added included, sorted.");
  module.def("add_environments", &shoal::add_environments, "environments"_a,
             "Adds the environments of an extension module, whose capsule this is; their ids. ValueError where it was "
             "built against another core.");
  module.def("env_info", &shoal::info_dict, "id"_a,
             "What is known of a native environment: spaces, limits, parameters with their defaults.");
}

}  // namespace

void bind_env(nb::module_& module) {
  using shoal::NativePool;
  bind_registry(module);
  nb::class_<NativePool>(module, "Pool", "Rows of one native environment, stepped in place by a team of threads.")
      .def(
          "__init__",
          [](NativePool* self, std::string_view id, int num_rows, int num_threads, const shoal::ParamMap& params,
             const std::vector<shoal::GivenDraw>& draws, int frame_stack, double sticky_actions, double reward_scale,
             double reward_low, double reward_high, bool reward_sign) {
            const shoal::Preprocessing preprocessing{frame_stack, sticky_actions, reward_scale,
                                                     reward_low,  reward_high,    reward_sign};
            new (self) NativePool(id, num_rows, num_threads, params, shoal::read_draws(draws), preprocessing);
          },
          "id"_a, "num_rows"_a, "num_threads"_a, "params"_a, "draws"_a = std::vector<shoal::GivenDraw>(), nb::kw_only(),
          "frame_stack"_a = 1, "sticky_actions"_a = 0.0, "reward_scale"_a = 1.0,
          "reward_low"_a = -std::numeric_limits<double>::infinity(),
          "reward_high"_a = std::numeric_limits<double>::infinity(), "reward_sign"_a = false)
      .def_prop_ro("num_rows", [](const NativePool& pool) { return pool.rows().num_rows(); })
      .def_prop_ro("obs_size", [](const NativePool& pool) { return pool.rows().obs_size(); })
      .def_prop_ro("action_size", [](const NativePool& pool) { return pool.rows().action_size(); })
      .def_prop_ro("discrete", [](const NativePool& pool) { return pool.rows().discrete(); })
      .def_prop_ro("num_agents", [](const NativePool& pool) { return pool.rows().num_agents(); })
      .def_prop_ro("num_threads", &NativePool::num_threads)
      .def_prop_ro(
          "layout", [](const NativePool& pool) { return pool.rows().layout(); },
          "What the bytes of a saved row mean, in words; rows saved under other words are not these.")
      .def(
          "attach",
          [](NativePool& pool, NativePool::Array obs, NativePool::Array reward, NativePool::Array terminated,
             NativePool::Array truncated, NativePool::Array final_obs, NativePool::Array episode_return,
             NativePool::Array episode_length, NativePool::Array drawn) {
            pool.attach({std::move(obs), std::move(reward), std::move(terminated), std::move(truncated),
                         std::move(final_obs), std::move(episode_return), std::move(episode_length), std::move(drawn)});
          },
          "obs"_a.noconvert(), "reward"_a.noconvert(), "terminated"_a.noconvert(), "truncated"_a.noconvert(),
          "final_obs"_a.noconvert(), "episode_return"_a.noconvert(), "episode_length"_a.noconvert(),
          "drawn"_a.noconvert(), "Keep these arrays and write every step to them.")
      .def("reset", &NativePool::reset, "seeds"_a.noconvert(), "Seed and reset every row; writes obs.")
      .def(
          "send", &NativePool::send, "slot"_a, "first"_a, "count"_a, "actions"_a.noconvert(),
          "Start stepping rows [first, first + count). ValueError naming the row for a bad action; nothing is stepped.")
      .def("recv", &NativePool::recv, "slot"_a, "Wait until the slot's rows are stepped.")
      .def("state", &NativePool::state, "Every row's bytes: uint8 [num_rows, row_bytes].")
      .def_prop_ro(
          "frame",
          [](const NativePool& pool) {
            const auto frame = pool.rows().frame();
            return std::pair(frame.height, frame.width);
          },
          "Height and width of a row's picture; (0, 0) where the environment draws none.")
      .def("render", &NativePool::render, "row"_a,
           "An RGB image of a row: uint8 [height, width, 3]. ValueError where the environment cannot be rendered.")
      .def("restart", &NativePool::restart, "seeds"_a.noconvert(), "seeded"_a.noconvert(), "going_on"_a.noconvert(),
           "Begin a new episode in some rows: seeded, or going on with the row's own generator; writes their obs.")
      .def("restore", &NativePool::restore, "state"_a.noconvert(),
           "Put back what state() gave; returns the rows that could not be brought back: they have ended as truncated "
           "and begun anew. obs is written for those alone.");
}
