// The table of kernels of one instruction set: built once for each, with -DSHOAL_ISA=name and its own -march.
#include "net/kernels.hpp"

#include "net/acting.hpp"
#include "net/decoding.hpp"
#include "net/learning.hpp"
#include "net/optimizer.hpp"
#include "net/panels.hpp"
#include "net/peak.hpp"
#include "net/pixels.hpp"
#include "net/recurrent_heads.hpp"
#include "net/training.hpp"

#include "loss_headers.inc"  // written by CMake: an #include of every header in native/losses

#define SHOAL_TEXT_OF(name) #name
#define SHOAL_TEXT(name) SHOAL_TEXT_OF(name)

namespace shoal::SHOAL_ISA {

#define SHOAL_LOSS(Type) static_assert(require_fused_loss<Type>());
#include "losses.inc"  // written by CMake: SHOAL_LOSS(Type) for every header in native/losses
#undef SHOAL_LOSS

static constexpr LossKernels all_losses[] = {
#define SHOAL_LOSS(Type) loss_kernels<Type>(),
#include "losses.inc"
#undef SHOAL_LOSS
};

static constexpr SequenceGradient all_sequence_gradients[] = {
#define SHOAL_LOSS(Type) sequence_gradient<Type>,
#include "losses.inc"
#undef SHOAL_LOSS
};

static constexpr RecurrentKernels recurrent{pack, recurrent_forward, recurrent_act, recurrent_backward,
                                            recurrent_finish};

const Kernels& kernels() noexcept {
  static constexpr Kernels table{SHOAL_TEXT(SHOAL_ISA),
                                 forward,
                                 act,
                                 forward_kept,
                                 backward_kept,
                                 all_losses,
                                 sizeof(all_losses) / sizeof(all_losses[0]),
                                 recurrent,
                                 all_sequence_gradients,
                                 add,
                                 sum_squares,
                                 adam,
                                 rmsprop,
                                 pixels_last,
                                 decode_attention,
                                 pack_panels,
                                 panel_product,
                                 multiply_adds,
                                 multiply_add_flops};
  return table;
}

}  // namespace shoal::SHOAL_ISA
