// The table of kernels of one instruction set: built once for each, with -DSHOAL_ISA=name and its own -march.
#include "net/kernels.hpp"

#include "net/acting.hpp"
#include "net/learning.hpp"
#include "net/optimizer.hpp"
#include "net/peak.hpp"
#include "net/pixels.hpp"

#define SHOAL_TEXT_OF(name) #name
#define SHOAL_TEXT(name) SHOAL_TEXT_OF(name)

namespace shoal::SHOAL_ISA {

const Kernels& kernels() noexcept {
  static constexpr Kernels table{SHOAL_TEXT(SHOAL_ISA), forward, act,     gradient,         add,
                                 sum_squares,           adam,    rmsprop, normalise_pixels, multiply_adds,
                                 multiply_add_flops};
  return table;
}

}  // namespace shoal::SHOAL_ISA
