"""Descent: a network's optimizer takes steps on gradients, in native code where that has it, in torch otherwise."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch

from shoal.learn.optimizers import (
    NativeOptimizer,
    check_moments,
    current,
    native_optimizer,
)
from shoal.learn.step_sizes import StepSizes
from shoal.learn.towers import pack_gradient
from shoal.types import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shoal.learn.packed import Packed
    from shoal.learn.sharing import Sharing


class Descent(StepSizes):
    """An optimizer, and its native form on the same moments; one that is not finite is no step."""

    def __init__(
        self,
        module: nn.Module,
        packed: Packed,
        optimizer: torch.optim.Optimizer | None,
        *,
        native: bool,
        max_grad_norm: float,
        sharing: Sharing,
    ) -> None:
        """Of a module's parameters.

        Args:
            module: whose they are.
            packed: where they lie.
            optimizer: torch's; None where nothing is trained.
            native: whether native code may take the steps.
            max_grad_norm: what a gradient's norm is cut to.
            sharing: what makes gradients the mean over several ranks before all else.
        """
        super().__init__(optimizer)
        self.module, self.packed = module, packed
        self.max_grad_norm = max_grad_norm
        self.sharing = sharing
        self._may_be_native = native
        self.native: NativeOptimizer | None = None
        """As it was at the last step."""
        self._gradient: Tensor | None = None
        """Where gradients are put side by side."""
        self.join()

    def join(self) -> None:
        """Has native code and torch's optimizer share the moments, whose tensors a restore replaces."""
        if self._may_be_native and self.optimizer is not None:
            self.native = native_optimizer(self.optimizer, self.module)

    def current(self) -> NativeOptimizer | None:
        """The native optimizer, about to step; None where only torch has what the optimizer's groups say."""
        if self._may_be_native:
            self.native = current(self.native, self.owned, self.module)
        return self.native

    def step_packed(self, gradient: Tensor) -> float:
        """`step` on a packed gradient, to which that of parameters that torch used directly is added."""
        first = 0
        for parameter in self.packed.parameters:
            last = first + parameter.numel()
            own = gradient[first:last].view_as(parameter)
            if parameter.grad is not None:
                own += parameter.grad
            parameter.grad = own
            first = last
        native = self.current()
        if native is None:
            return self.step()
        self.sharing.mean(gradient)
        flat, packed = self.packed.memory.numpy(), gradient.numpy()
        return native.optimizer.apply(flat, packed, self.max_grad_norm)

    def step_reached(self) -> float:
        """`step_gathered` where it may be; torch's where a parameter has no gradient, which then stays as it is."""
        if self._may_be_native and all(
            p.grad is not None for p in self.packed.parameters
        ):
            return self.step_gathered()
        return self.step()

    def step_gathered(self) -> float:
        """`step`, in native code where that has the optimizer: on the parameters' gradients put side by side.

        The packed memory is what steps; where a parameter may have got another, `Packed.rejoin` comes before.
        """
        native = self.current()
        if native is None:
            return self.step()
        if self._gradient is None or len(self._gradient) != len(self.packed.memory):
            self._gradient = torch.empty_like(self.packed.memory)
        pack_gradient(self.packed.parameters, self._gradient)
        self.sharing.mean(self._gradient)
        flat, gradient = self.packed.memory.numpy(), self._gradient.numpy()
        return native.optimizer.apply(flat, gradient, self.max_grad_norm)

    def step(self) -> float:
        """Clips the gradient and takes the optimizer's step, unless the gradient is not finite; returns its norm."""
        self.sharing.mean_of(self.packed.parameters)
        limit = self.max_grad_norm
        norm = float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), limit))
        if math.isfinite(norm):
            native = self.current()
            if native is not None:
                native.write_step()
            self.owned.step()
            if native is not None:
                native.read_step()
        return norm

    def state(self) -> dict[str, Any]:
        """Torch's state of the optimizer, and the factor that its rates hold, where there is one."""
        if self.native is not None:
            self.native.write_step()
        saved = self.owned.state_dict()
        if self._rate_factor != 1:
            saved["rate_factor"] = self._rate_factor
        return saved

    def restore(self, saved: dict[str, Any]) -> None:
        """Copies a saved state in; ConfigError where it is another optimizer's."""
        # Torch would go on with the saved tensors themselves, and a second restore would find them changed.
        own = copy.deepcopy(saved)
        rate_factor = float(own.pop("rate_factor", 1.0))
        try:
            self.owned.load_state_dict(own)
        except ValueError as error:
            raise ConfigError(
                f"the checkpoint holds another optimizer: {error}"
            ) from error
        check_moments(self.owned)
        self._rate_factor = rate_factor
