// Environments by name, and what an extension module of environments hands over to shoal's: its table, and a stamp that
// says against which core it was built.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "core/pool.hpp"
#include "core/stamp.hpp"

#define SHOAL_TEXT_OF(value) SHOAL_TEXT(value)
#define SHOAL_TEXT(value) #value
#if defined(_LIBCPP_ABI_VERSION)
#define SHOAL_LIBRARY "libc++ " SHOAL_TEXT_OF(_LIBCPP_ABI_VERSION)
#elif defined(_GLIBCXX_DEBUG)
#define SHOAL_LIBRARY "libstdc++ with _GLIBCXX_DEBUG"
#else
#define SHOAL_LIBRARY "libstdc++ " SHOAL_TEXT_OF(_GLIBCXX_USE_CXX11_ABI)
#endif

namespace shoal {

/// The version of shoal, what its headers held, and the C++ library: two modules whose stamps are equal lay out the
/// core's types alike.
inline constexpr const char* core_stamp = SHOAL_CORE ", " SHOAL_LIBRARY;

/// One environment of a build.
struct Entry {
  EnvInfo (*info)();
  std::unique_ptr<Rows> (*make)(int num_rows, const ParamMap& params, const std::vector<Draw>& draws);
};

template <class E>
constexpr Entry entry_of() {
  static_assert(require_env<E>());
  return {[] { return env_info<E>(); },
          [](int num_rows, const ParamMap& params, const std::vector<Draw>& draws) -> std::unique_ptr<Rows> {
            return std::make_unique<Pool<E>>(num_rows, params, draws);
          }};
}

/// What the capsule of an extension module points to. The stamp stays the first member: it is compared before anything
/// else is read.
struct Extension {
  static constexpr const char* capsule = "shoal.environments";
  const char* stamp;
  const Entry* entries;
  std::size_t num_entries;
};

}  // namespace shoal
