// From a network's description to its offsets: where every layer lies in the parameters and in the accumulators.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "net/shape.hpp"

namespace shoal {

struct MlpConfig {
  int obs_size;
  std::vector<int> hidden;
  std::string head;  ///< "categorical", "gaussian" or "q_values"
  std::vector<int> action_nvec;
  std::string activation;  ///< "tanh" or "relu"
};

/// What every tower must be.
inline void check_tower(int obs_size, const std::vector<int>& hidden, const std::string& activation) {
  const bool positive = std::ranges::all_of(hidden, [](int size) { return size > 0; });
  if (obs_size < 1) {
    throw std::invalid_argument("obs_size must be at least 1, not " + std::to_string(obs_size));
  }
  if (hidden.size() >= max_layers || !positive) {
    throw std::invalid_argument("hidden must hold at most " + std::to_string(max_layers - 1) + " positive sizes");
  }
  if (activation != "tanh" && activation != "relu") {
    throw std::invalid_argument("activation must be 'tanh' or 'relu', not '" + activation + "'");
  }
}

inline void check_config(const MlpConfig& config) {
  check_tower(config.obs_size, config.hidden, config.activation);
  if (config.head != "categorical" && config.head != "gaussian" && config.head != "q_values") {
    throw std::invalid_argument("head must be 'categorical', 'gaussian' or 'q_values', not '" + config.head + "'");
  }
  const bool positive = std::ranges::all_of(config.action_nvec, [](int size) { return size > 0; });
  if (config.action_nvec.empty() || !positive) {
    throw std::invalid_argument("action_nvec must hold at least one positive size");
  }
  const bool gaussian = config.head == "gaussian";
  if (config.head != "categorical" && config.action_nvec.size() != 1) {
    throw std::invalid_argument("action_nvec of a head '" + config.head + "' must be one number, not " +
                                std::to_string(config.action_nvec.size()) + " sizes");
  }
  const int actions = gaussian ? config.action_nvec[0] : static_cast<int>(config.action_nvec.size());
  if (actions > max_actions) {
    throw std::invalid_argument("an action may have at most " + std::to_string(max_actions) + " parts, not " +
                                std::to_string(actions));
  }
}

/// Lays one tower out behind what `net` holds already.
inline Tower lay_tower(int obs_size, const std::vector<int>& hidden, int outputs, Net& net) {
  constexpr int narrow_width = 8;  // up to this width, sums lane by lane beat the product with a transposed input
  constexpr int narrow_weights = 1024;
  Tower tower{};
  int in = obs_size;
  for (std::size_t l = 0; l <= hidden.size(); ++l) {
    const int out = l < hidden.size() ? hidden[l] : outputs;
    Dense& layer = tower.layers[l];
    layer.in = in;
    layer.out = out;
    layer.narrow = std::min(in, out) <= narrow_width && in * out <= narrow_weights;
    const std::ptrdiff_t weights = static_cast<std::ptrdiff_t>(in) * out;
    layer.weight = net.num_params;
    layer.bias = layer.weight + weights;
    net.num_params = layer.bias + out;
    layer.sum_weight = net.num_sums;
    layer.sum_bias = layer.sum_weight + (layer.narrow ? weights * pad_size : out * padded(in));
    net.num_sums = layer.sum_bias + static_cast<std::ptrdiff_t>(out) * pad_size;
    net.max_width = std::max({net.max_width, in, out});
    in = out;
  }
  tower.depth = static_cast<int>(hidden.size()) + 1;
  net.max_depth = tower.depth;
  return tower;
}

inline Head head_of(const MlpConfig& config) {
  if (config.head == "gaussian") {
    return Head::gaussian;
  }
  return config.head == "q_values" ? Head::q_values : Head::categorical;
}

/// The layout in torch's order: the actor's Linear layers (weight, then bias), the critic's, log_std of a Gaussian. A
/// Q-network is an actor alone.
inline Net make_net(const MlpConfig& config) {
  check_config(config);
  Net net{};
  net.obs_size = config.obs_size;
  net.head = head_of(config);
  net.tanh = config.activation == "tanh";
  if (net.head == Head::gaussian) {
    net.num_actions = net.num_outputs = config.action_nvec[0];
  } else {
    net.num_actions = static_cast<int>(config.action_nvec.size());
    for (int k = 0; k < net.num_actions; ++k) {
      net.nvec[k] = config.action_nvec[static_cast<std::size_t>(k)];
      net.num_outputs += net.nvec[k];
    }
  }
  net.actor = lay_tower(config.obs_size, config.hidden, net.num_outputs, net);
  if (net.head != Head::q_values) {
    net.critic = lay_tower(config.obs_size, config.hidden, 1, net);
  }
  net.sum_log_std = net.num_sums;
  if (net.head == Head::gaussian) {
    net.log_std = net.num_params;
    net.num_params += net.num_actions;
    net.num_sums += static_cast<std::ptrdiff_t>(net.num_actions) * pad_size;
  }
  return net;
}

/// One plain tower in torch's order.
inline Net make_tower_net(int obs_size, const std::vector<int>& hidden, int outputs, const std::string& activation) {
  check_tower(obs_size, hidden, activation);
  if (outputs < 1) {
    throw std::invalid_argument("outputs must be at least 1, not " + std::to_string(outputs));
  }
  Net net{};
  net.obs_size = obs_size;
  net.head = Head::categorical;
  net.tanh = activation == "tanh";
  net.num_outputs = outputs;
  net.actor = lay_tower(obs_size, hidden, outputs, net);
  net.sum_log_std = net.num_sums;
  return net;
}

}  // namespace shoal
