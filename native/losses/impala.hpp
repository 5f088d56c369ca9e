// IMPALA's loss (Espeholt et al. 2018, arXiv 1802.01561, section 4.2): that of an advantage actor-critic, whose
// advantages and targets V-trace has corrected.
#pragma once

#include "losses/a2c.hpp"

namespace shoal::SHOAL_ISA {

/// -A log_prob - ent_coef * entropy + vf_coef * 0.5 (v - target)^2, A and target being V-trace's.
struct Impala : A2c {
  static constexpr const char* name = "impala_loss";

  using A2c::A2c;
};

}  // namespace shoal::SHOAL_ISA
