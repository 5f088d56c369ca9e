// Chooses the kernels for this machine's instructions.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "net/kernels.hpp"

namespace shoal {

/// All kernels that this machine can run, the fastest first.
inline std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> usable;
#if defined(__x86_64__) && !defined(SHOAL_BASELINE)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
      __builtin_cpu_supports("avx512cd") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
      __builtin_cpu_supports("avx512vl") != 0) {
    usable.push_back(&x86_64_v4::kernels());
  }
  if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
      __builtin_cpu_supports("bmi2") != 0) {
    usable.push_back(&x86_64_v3::kernels());
  }
  usable.push_back(&x86_64_v2::kernels());
#else
  usable.push_back(&baseline::kernels());
#endif
  return usable;
}

/// The kernels of that name, or the fastest ones for an empty name.
inline const Kernels& find_kernels(std::string_view name) {
  const std::vector<const Kernels*> usable = usable_kernels();
  std::string names;
  for (const Kernels* kernels : usable) {
    if (name.empty() || name == kernels->name) {
      return *kernels;
    }
    names += (names.empty() ? "" : ", ") + std::string(kernels->name);
  }
  throw std::invalid_argument("kernels must be one of " + names + " on this machine, not '" + std::string(name) + "'");
}

}  // namespace shoal
