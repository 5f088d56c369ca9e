"""Optimizers in native code that share their moments with torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch.optim import Adam, RMSprop

from shoal import _native
from shoal.learn.weights import packing
from shoal.types import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

PLAIN_ADAM = {
    "weight_decay": 0,
    "amsgrad": False,
    "maximize": False,
}
PLAIN_RMSPROP = {
    "weight_decay": 0,
    "momentum": 0,
    "centered": False,
    "maximize": False,
}
"""What native code does not do besides; an optimizer with other values stays in torch."""


TURNED_ON = {
    "momentum": "momentum_buffer",
    "centered": "grad_avg",
    "amsgrad": "max_exp_avg_sq",
}
"""Settings for which torch's optimizers keep another moment, and its name."""


ELEMENTWISE = (
    "exp_avg",
    "exp_avg_sq",
    "exp_inf",
    "square_avg",
    "acc_delta",
    "sum",
    *TURNED_ON.values(),
)
"""Moments of torch's optimizers that have a number for each of the parameter's."""


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """ConfigError where a loaded moment is not finite, or of another shape than its parameter."""
    for number, (parameter, state) in enumerate(optimizer.state.items()):
        for name, moment in state.items():
            if not torch.is_tensor(moment):
                continue
            what = f"the checkpoint's moment {name} of parameter {number}"
            if name in ELEMENTWISE and moment.shape != parameter.shape:
                raise ConfigError(
                    f"{what} has the shape {tuple(moment.shape)}, the parameter {tuple(parameter.shape)}; "
                    "the file was altered: resume from another checkpoint, or train again"
                )
            if not torch.isfinite(moment).all():
                raise ConfigError(
                    f"{what} is not finite: that training diverged, or the file was altered; train again, with a "
                    "smaller learning_rate"
                )
        if float(state.get("step", 0)) < 0:
            raise ConfigError(
                f"the checkpoint's optimizer has taken {float(state['step']):g} steps; the file was altered: resume "
                "from another checkpoint, or train again"
            )


class NativeOptimizer:
    """The same step in native code: torch's state dictionary shows the same numbers."""

    def __init__(
        self,
        optimizer: _native.Adam | _native.RMSProp,
        steps: list[torch.Tensor],
        owner: torch.optim.Optimizer,
    ) -> None:
        """`steps` are the counts that `owner`, torch's optimizer, keeps, one for each parameter."""
        self.optimizer, self._steps, self._owner = optimizer, steps, owner
        self._first = owner.param_groups[0]["params"][0]
        self._count = owner.state[self._first]["step"]
        self.read_step()

    def shares(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether this is torch's `optimizer` still, and its state has not been loaded since."""
        loaded = optimizer.state[self._first].get("step") is not self._count
        return optimizer is self._owner and not loaded

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes over what torch's group says of the next step: a schedule may have changed it."""
        group, native = optimizer.param_groups[0], self.optimizer
        native.learning_rate, native.eps = group["lr"], group["eps"]
        if isinstance(native, _native.Adam):
            native.betas = tuple(group["betas"])
        else:
            native.alpha = group["alpha"]

    def write_step(self) -> None:
        """Tells torch's optimizer how many steps there were."""
        for steps in self._steps:
            steps.fill_(self.optimizer.step)

    def read_step(self) -> None:
        """Asks torch's optimizer how many steps there were."""
        self.optimizer.step = int(self._steps[0])


def is_plain(optimizer: torch.optim.Optimizer) -> bool:
    """Whether native code does all that an optimizer's groups say."""
    if len(optimizer.param_groups) != 1:
        return False
    group = optimizer.param_groups[0]
    if type(optimizer) is Adam:
        return _holds(group, PLAIN_ADAM)
    return type(optimizer) is RMSprop and _holds(group, PLAIN_RMSPROP)


def add_moments(optimizer: torch.optim.Optimizer) -> None:
    """Makes the moments of settings that were turned on between two steps; torch makes them at the first only."""
    for group in optimizer.param_groups:
        turned_on = [moment for name, moment in TURNED_ON.items() if group.get(name)]
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            for moment in turned_on if state else ():
                optimizer.state[parameter].setdefault(
                    moment, torch.zeros_like(parameter)
                )


def current(
    native: NativeOptimizer | None, optimizer: torch.optim.Optimizer, module: nn.Module
) -> NativeOptimizer | None:
    """The native form that is about to step, as torch's groups are now; `native` is the one until now."""
    if not is_plain(optimizer):
        if native is not None:
            native.write_step()
            add_moments(optimizer)
        return None
    if native is None or not native.shares(optimizer):
        native = native_optimizer(optimizer, module)
    if native is not None:
        native.follow(optimizer)
        # Torch's schedules ask here whether a step came before theirs.
        cast("Any", optimizer)._opt_called = True
    return native


def native_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module
) -> NativeOptimizer | None:
    """The native form of an optimizer of all of a module's parameters; None where only torch has it."""
    if not is_plain(optimizer):
        add_moments(optimizer)
        return None
    if next(module.parameters()).device.type != "cpu":
        return None
    group = optimizer.param_groups[0]
    if type(optimizer) is Adam:
        exp_avg, exp_avg_sq = shared_moments(optimizer, module, "exp_avg", "exp_avg_sq")
        steps = _step_counts(optimizer, module)
        native = _native.Adam(
            exp_avg,
            exp_avg_sq,
            learning_rate=group["lr"],
            betas=group["betas"],
            eps=group["eps"],
        )
        return NativeOptimizer(native, steps, optimizer)
    (square_avg,) = shared_moments(optimizer, module, "square_avg")
    steps = _step_counts(optimizer, module)
    native = _native.RMSProp(
        square_avg,
        learning_rate=group["lr"],
        alpha=group["alpha"],
        eps=group["eps"],
    )
    return NativeOptimizer(native, steps, optimizer)


def shared_moments(
    optimizer: torch.optim.Optimizer, module: nn.Module, *names: str
) -> list[NDArray[np.float32]]:
    """Flat buffers of an optimizer's moments, in packed order, that torch's optimizer state shares."""
    flats: list[NDArray[np.float32]] = []
    parameters = packing(module)
    for name in names:
        zeros = (torch.zeros_like(p) for p in parameters)
        pairs = zip(parameters, zeros, strict=True)
        old = [optimizer.state[p].get(name, zero) for p, zero in pairs]
        flat = torch.cat([x.detach().reshape(-1) for x in old])
        first = 0
        for parameter in parameters:
            last = first + parameter.numel()
            optimizer.state[parameter][name] = flat[first:last].view_as(parameter)
            first = last
        flats.append(flat.numpy())
    return flats


def _step_counts(
    optimizer: torch.optim.Optimizer, module: nn.Module
) -> list[torch.Tensor]:
    """The count of steps of each parameter, made where there was no step yet."""
    counts: list[torch.Tensor] = []
    for parameter in packing(module):
        state = optimizer.state[parameter]
        state["step"] = torch.as_tensor(state.get("step", 0.0), dtype=torch.float32)
        counts.append(state["step"])
    return counts


def _holds(group: dict[str, Any], expected: dict[str, Any]) -> bool:
    return all(group.get(name, value) == value for name, value in expected.items())
