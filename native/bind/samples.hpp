// The C++ side of what shoal._native trains on: losses by name, their settings, a rollout's samples.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bind/plan.hpp"

namespace shoal {

inline std::string listed(std::span<const char* const> names) {
  std::string text;
  for (const char* name : names) {
    text += (text.empty() ? "" : ", ") + std::string(name);
  }
  return text;
}

inline std::span<const LossKernels> losses_of(const Kernels& kernels) {
  return {kernels.losses, static_cast<Size>(kernels.num_losses)};
}

/// The loss of that name; ValueError where there is none, or it is not one for this head.
inline const LossKernels& find_loss(const Kernels& kernels, const Net& heads, std::string_view name) {
  std::vector<const char*> names;
  for (const LossKernels& loss : losses_of(kernels)) {
    if (name == loss.name && loss.of_values != (heads.head == Head::q_values)) {
      throw std::invalid_argument(std::string(name) + " is a loss of " +
                                  (loss.of_values ? "a Q-network" : "a policy and its value function") +
                                  ", which the plan's head does not give");
    }
    if (name == loss.name) {
      return loss;
    }
    names.push_back(loss.name);
  }
  throw std::invalid_argument("there is no fused loss '" + std::string(name) + "'; there are: " + listed(names));
}

using SettingsDict = nanobind::typed<nanobind::dict, nanobind::str, double>;
using ColumnsDict = nanobind::typed<nanobind::dict, nanobind::str, ArrayIn>;

/// A loss's settings in its own order.
class Settings {
 public:
  Settings(const LossKernels& loss, const nanobind::dict& given) {
    const std::span<const char* const> names{loss.settings, static_cast<Size>(loss.num_settings)};
    for (Size i = 0; i < names.size(); ++i) {
      PyObject* const value = PyDict_GetItemString(given.ptr(), names[i]);
      if (value == nullptr) {
        throw std::invalid_argument(std::string(loss.name) + " needs the setting '" + names[i] +
                                    "'; it takes: " + listed(names));
      }
      const double number = PyFloat_AsDouble(value);
      if ((number == -1.0 && PyErr_Occurred() != nullptr) || std::isnan(number)) {
        PyErr_Clear();
        throw std::invalid_argument("setting '" + std::string(names[i]) + "' of " + loss.name + " must be a number");
      }
      values_[i] = static_cast<float>(number);
    }
    if (given.size() != names.size()) {
      refuse_unknown(loss, names, given);
    }
  }
  [[nodiscard]] const float* values() const noexcept { return values_; }

 private:
  [[noreturn]] static void refuse_unknown(const LossKernels& loss, std::span<const char* const> names,
                                          const nanobind::dict& given) {
    std::string unknown;
    for (const auto& [key, value] : given) {
      const auto name = nanobind::cast<std::string>(key);
      if (std::ranges::find(names, name) == names.end()) {
        unknown += (unknown.empty() ? "'" : ", '") + name + "'";
      }
    }
    throw std::invalid_argument(std::string(loss.name) + " has no setting " + unknown + "; it takes: " + listed(names));
  }

  float values_[max_loss_members] = {};
};

/// The indices, each checked against the number of samples.
inline const std::int32_t* checked_index(const ArrayIn& index, Size samples) {
  const Size count = axis(index, "index", 1, 0);
  const auto* const from = numbers<std::int32_t>(index, "index", {count});
  const auto size = static_cast<std::int32_t>(std::min<Size>(samples, 0x7FFFFFFF));
  int bad = 0;
  for (Size i = 0; i < count; ++i) {
    bad |= static_cast<int>(from[i] < 0) | static_cast<int>(from[i] >= size);
  }
  for (Size i = 0; bad != 0 && i < count; ++i) {
    if (from[i] < 0 || from[i] >= size) {
      throw std::invalid_argument("index[" + std::to_string(i) + "] must lie between 0 and " +
                                  std::to_string(samples - 1) + ", not " + std::to_string(from[i]));
    }
  }
  return from;
}

/// `_native.Samples`: a rollout's arrays, checked once and kept alive.
class NativeSamples {
 public:
  NativeSamples(const ArrayIn& obs, const ArrayIn& action, const ColumnsDict& columns, const OptionalArray& mask,
                const std::optional<ArrayOut>& error)
      : arrays_{obs, action}, error_array_(error) {
    size_ = axis(obs, "obs", 2, 0);
    obs_size_ = obs.shape(1);
    obs_ = numbers<float>(obs, "obs", {size_, obs_size_});
    num_actions_ = axis(action, "action", 2, 1);
    if (action.dtype() == nanobind::dtype<float>()) {
      action_ = numbers<float>(action, "action", {size_, num_actions_});
    } else if (action.dtype() == nanobind::dtype<std::int64_t>()) {
      choice_ = numbers<std::int64_t>(action, "action", {size_, num_actions_});
      find_highest();
    } else {
      throw std::invalid_argument("action must be an array of int64 (choices) or float32 (a Gaussian's)");
    }
    for (const auto& [key, value] : columns) {
      const auto name = nanobind::cast<std::string>(nanobind::str(key));
      ArrayIn values;
      if (!nanobind::try_cast(value, values, false)) {
        throw std::invalid_argument(name + " must be an array of float32");
      }
      add_column(name, values);
    }
    if (mask.has_value()) {
      num_options_ = axis(*mask, "mask", 2, 1);
      mask_ = numbers<std::uint8_t>(*mask, "mask", {size_, num_options_});
      arrays_.push_back(*mask);
    }
    if (error.has_value()) {
      error_ = numbers<float>(*error, "error", {size_});
    }
  }

  [[nodiscard]] Size size() const noexcept { return size_; }
  [[nodiscard]] Size obs_size() const noexcept { return obs_size_; }
  [[nodiscard]] const float* obs() const noexcept { return obs_; }

  /// ValueError where these are not samples of a policy with these heads and so large an observation.
  void check_fit(const Net& heads, Size obs_size) const {
    const bool gaussian = heads.head == Head::gaussian;
    if (obs_size_ != obs_size) {
      throw std::invalid_argument("samples: obs has " + std::to_string(obs_size_) + " numbers, the plan takes " +
                                  std::to_string(obs_size));
    }
    if (gaussian != (action_ != nullptr)) {
      throw std::invalid_argument(std::string("samples: action must be an array of ") +
                                  (gaussian ? "float32" : "int64") + ", as the plan's head gives it");
    }
    if (!std::cmp_equal(num_actions_, heads.num_actions)) {
      throw std::invalid_argument("samples: action has " + std::to_string(num_actions_) + " parts, the plan gives " +
                                  std::to_string(heads.num_actions));
    }
    if (mask_ != nullptr && (gaussian || !std::cmp_equal(num_options_, heads.num_outputs))) {
      throw std::invalid_argument("samples: mask has " + std::to_string(num_options_) + " options, the plan chooses " +
                                  "among " + std::to_string(gaussian ? 0 : heads.num_outputs));
    }
    for (Size k = 0; k < highest_.size(); ++k) {
      if (std::cmp_greater_equal(highest_[k], heads.nvec[k])) {
        refuse_choice(heads, k);
      }
    }
  }

  /// The loss's columns, in its order.
  void find_columns(const LossKernels& loss, const float** to) const {
    for (int c = 0; c < loss.num_columns; ++c) {
      to[c] = nullptr;
      for (const auto& [name, values] : columns_) {
        to[c] = name == loss.columns[c] ? values : to[c];
      }
      if (to[c] == nullptr) {
        std::vector<const char*> names;
        names.reserve(columns_.size());
        for (const auto& column : columns_) {
          names.push_back(column.first.c_str());
        }
        throw std::invalid_argument("samples have no column '" + std::string(loss.columns[c]) + "', which " +
                                    loss.name + " reads; they have: " + listed(names));
      }
    }
  }

  [[nodiscard]] Minibatch pick(const std::int32_t* index, Size count, const float* const* columns) const noexcept {
    return {obs_, choice_, action_, mask_, columns, index, static_cast<std::ptrdiff_t>(count), error_};
  }

 private:
  /// The highest choice of each part; a negative one counts as higher than any other.
  void find_highest() {
    highest_.assign(num_actions_, 0);
    for (Size i = 0; i < size_; ++i) {
      for (Size k = 0; k < num_actions_; ++k) {
        highest_[k] = std::max(highest_[k], static_cast<std::uint64_t>(choice_[i * num_actions_ + k]));
      }
    }
  }

  void add_column(const std::string& name, const ArrayIn& values) {
    columns_.emplace_back(name, numbers<float>(values, name.c_str(), {size_}));
    arrays_.push_back(values);
  }

  [[noreturn]] void refuse_choice(const Net& net, Size k) const {
    Size i = 0;
    while (static_cast<std::uint64_t>(choice_[i * num_actions_ + k]) < static_cast<std::uint64_t>(net.nvec[k])) {
      ++i;
    }
    throw std::invalid_argument("action of sample " + std::to_string(i) +
                                " is out of the range that action_nvec gives: " +
                                std::to_string(choice_[i * num_actions_ + k]) + " of " + std::to_string(net.nvec[k]));
  }

  std::vector<ArrayIn> arrays_;
  std::optional<ArrayOut> error_array_;
  Size size_ = 0;
  Size obs_size_ = 0;
  Size num_actions_ = 0;
  Size num_options_ = 0;
  const float* obs_ = nullptr;
  const std::int64_t* choice_ = nullptr;
  const float* action_ = nullptr;
  const std::uint8_t* mask_ = nullptr;
  float* error_ = nullptr;
  std::vector<std::uint64_t> highest_;
  std::vector<std::pair<std::string, const float*>> columns_;
};

}  // namespace shoal
