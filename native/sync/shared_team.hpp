// A team that several owners use, one call at a time: more teams than cores would spin in each other's way.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>

#include "sync/team.hpp"

namespace shoal {

/// Who gives the team work holds the mutex.
struct SharedTeam {
  using Sizes = std::array<std::ptrdiff_t, 8>;

  explicit SharedTeam(int num_threads) : team(num_threads) {}
  Team team;
  std::mutex mutex;
  std::map<Sizes, std::weak_ptr<void>> scratch;  ///< memory that owners of equal sizes use in turn
};

/// The team of `num_threads` that all who ask for it share; it ends with the last of them.
inline std::shared_ptr<SharedTeam> shared_team(int num_threads) {
  static std::mutex mutex;
  static std::map<int, std::weak_ptr<SharedTeam>> teams;
  const std::scoped_lock lock(mutex);
  std::shared_ptr<SharedTeam> team = teams[num_threads].lock();
  if (team == nullptr) {
    team = std::make_shared<SharedTeam>(num_threads);
    teams[num_threads] = team;
  }
  return team;
}

}  // namespace shoal
