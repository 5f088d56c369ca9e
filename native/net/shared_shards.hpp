// The memory of gradients that all networks of one shape and one team use, one call at a time: what every network of
// several learners had of its own would not fit into a core's cache.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "net/scratch.hpp"
#include "net/shards.hpp"
#include "sync/shared_team.hpp"

namespace shoal {

/// Shards whose buffers have the sizes that `net` needs. They end with the last network that asked for them.
inline std::shared_ptr<Shards<ShardMemory>> shared_shards(SharedTeam& team, const Net& net, int grad_shards,
                                                          const Kernels& kernels) {
  const SharedTeam::Sizes sizes{net.num_params,
                                net.num_sums,
                                net.max_width,
                                net.max_depth,
                                net.obs_size,
                                net.num_actions,
                                at_least_one(grad_shards, "grad_shards"),
                                reinterpret_cast<std::intptr_t>(&kernels)};
  const std::scoped_lock lock(team.mutex);
  auto shards = std::static_pointer_cast<Shards<ShardMemory>>(team.scratch[sizes].lock());
  if (shards == nullptr) {
    shards = std::make_shared<Shards<ShardMemory>>(net, grad_shards, kernels, team.team);
    team.scratch[sizes] = shards;
  }
  return shards;
}

}  // namespace shoal
