// The extension module shoal._native: one call a room.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_decoding(nb::module_& module);
void bind_env(nb::module_& module);
void bind_fork(nb::module_& module);
void bind_gather(nb::module_& module);
void bind_math(nb::module_& module);
void bind_memory(nb::module_& module);
void bind_mujoco(const nb::module_& module);
void bind_net(nb::module_& module);
void bind_net_recurrent(const nb::module_& module);
void bind_panels(nb::module_& module);
void bind_remote(nb::module_& module);
void bind_replay(nb::module_& module);
void bind_stepping(nb::module_& module);
void bind_wire(nb::module_& module);

NB_MODULE(_native, module) {
  // Ctrl-C twice ends a run in the middle: what is alive then is no fault that a user could mend.
  nb::set_leak_warnings(false);
  module.doc() = "shoal's native core: environments, equations, lowered policies, hand-offs between processes.";
  bind_decoding(module);
  bind_env(module);
  bind_fork(module);
  bind_gather(module);
  bind_math(module);
  bind_memory(module);
  bind_mujoco(module);
  bind_net(module);
  bind_net_recurrent(module);
  bind_panels(module);
  bind_remote(module);
  bind_replay(module);
  bind_stepping(module);
  bind_wire(module);
}
