// From a recurrent policy's description to its offsets in the parameters, the packed weights and the accumulators.
#pragma once

#include <string>
#include <vector>

#include "net/layout.hpp"
#include "net/recurrent_shape.hpp"

namespace shoal {

struct RecurrentConfig {
  int obs_size;
  std::vector<int> hidden;
  std::string cell;  ///< "gru" or "lstm"
  int size;
  std::string head;  ///< "categorical" or "gaussian"
  std::vector<int> action_nvec;
  std::string activation;  ///< "tanh" or "relu"
};

/// A layer's sizes and its room in the packed weights and the accumulators; the parameters are laid out by the caller.
inline RowLayer lay_rows(int in, int size, const std::vector<int>& order, RecurrentNet& net) {
  RowLayer layer{};
  layer.in = in;
  layer.size = size;
  layer.groups = static_cast<int>(order.size());
  for (std::size_t g = 0; g < order.size(); ++g) {
    layer.order[g] = order[g];
  }
  layer.columns = static_cast<int>(layer.groups * padded(size));
  layer.forward = net.num_packed;
  layer.backward = layer.forward + padded(in) * layer.columns;
  net.num_packed = layer.backward + padded(in) * layer.columns;
  layer.sum = net.num_sums;
  net.num_sums += padded(in) * layer.columns;
  return layer;
}

inline void lay_body(const RecurrentConfig& config, RecurrentNet& net) {
  int in = config.obs_size;
  net.depth = static_cast<int>(config.hidden.size());
  for (int l = 0; l < net.depth; ++l) {
    const int out = config.hidden[static_cast<std::size_t>(l)];
    RowLayer& layer = net.body[l];
    layer = lay_rows(in, out, {0}, net);
    layer.weight = net.num_params;
    layer.bias = layer.weight + static_cast<std::ptrdiff_t>(in) * out;
    net.num_params = layer.bias + out;
    net.body_bias[l] = net.num_packed;
    net.num_packed += layer.columns;
    net.body_sum_bias[l] = net.num_sums;
    net.num_sums += layer.columns;
    in = out;
  }
}

/// torch's cell: weight_ih, weight_hh, bias_ih, bias_hh, with the gates r, z, n of a GRU and i, f, g, o of an LSTM.
inline void lay_cell(int in, const std::string& cell, int size, RecurrentNet& net) {
  const bool gru = cell == "gru";
  net.cell = gru ? Cell::gru : Cell::lstm;
  net.size = size;
  net.memory_block = gru ? 1 : 0;
  net.input = lay_rows(in, size, gru ? std::vector<int>{2, 0, 1} : std::vector<int>{0, 1, 2, 3}, net);
  net.memory = lay_rows(size, size, gru ? std::vector<int>{0, 1, 2} : std::vector<int>{0, 1, 2, 3}, net);
  const std::ptrdiff_t outputs = static_cast<std::ptrdiff_t>(net.input.groups) * size;
  net.input.weight = net.num_params;
  net.memory.weight = net.input.weight + outputs * in;
  net.input.bias = net.memory.weight + outputs * size;
  net.memory.bias = net.input.bias + outputs;
  net.num_params = net.memory.bias + outputs;
  net.cell_bias = net.num_packed;
  net.num_packed += max_gates * padded(size);
  net.cell_sum_bias = net.num_sums;
  net.num_sums += max_gates * padded(size);
}

/// The layout in torch's order: the body's Linear layers, the cell, the heads (actor, critic), log_std of a Gaussian.
inline RecurrentNet make_recurrent_net(const RecurrentConfig& config) {
  check_config({config.obs_size, config.hidden, config.head, config.action_nvec, config.activation});
  if (config.head == "q_values") {
    throw std::invalid_argument("head of a recurrent plan must be 'categorical' or 'gaussian', not 'q_values'");
  }
  if (config.cell != "gru" && config.cell != "lstm") {
    throw std::invalid_argument("cell must be 'gru' or 'lstm', not '" + config.cell + "'");
  }
  if (config.size < 1) {
    throw std::invalid_argument("recurrent_size must be at least 1, not " + std::to_string(config.size));
  }
  RecurrentNet net{};
  net.obs_size = config.obs_size;
  net.tanh = config.activation == "tanh";
  lay_body(config, net);
  lay_cell(config.hidden.empty() ? config.obs_size : config.hidden.back(), config.cell, config.size, net);
  net.heads = make_net({config.size, {}, config.head, config.action_nvec, config.activation});
  net.heads_params = net.num_params;
  net.num_params += net.heads.num_params;
  return net;
}

}  // namespace shoal
