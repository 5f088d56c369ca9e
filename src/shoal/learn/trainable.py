"""Trainable: one network, its packed weights and its optimizer, stepped in native code or in torch."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from shoal.learn.descent import Descent
from shoal.learn.losses import returned
from shoal.learn.lowering import lower
from shoal.learn.minibatches import Minibatch, everything
from shoal.learn.packed import Packed
from shoal.learn.shards import Shards, has_images
from shoal.learn.sharing import Sharing, prepared_batch
from shoal.learn.towers import has_native_towers, lower_towers
from shoal.learn.weights import check_savable, learned_state, load_weights, pack
from shoal.types import ConfigError, Transitions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from shoal.learn.hardware import Hardware
    from shoal.learn.losses import Fused, Loss
    from shoal.learn.plan import Plan
    from shoal.types import Sequences, Spec, Steps

    Batch = Steps | Minibatch | Transitions


class Trainable:
    """A module whose parameters lie in one flat buffer that native code and torch share."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        *,
        hardware: Hardware,
        max_grad_norm: float,
    ) -> None:
        """Made by a Learner."""
        self.module, self.micro_tokens = module, hardware.micro_tokens
        self._packed = Packed(module)
        self.plan: Plan | None = None
        spec: Spec | None = getattr(module, "spec", None)
        if hardware.native and spec is not None:
            self.plan = lower(
                module,
                spec,
                self._packed.memory,
                num_threads=hardware.num_threads,
                act_block=hardware.act_block,
                grad_shards=hardware.grad_shards,
                shared=True,
            )
        self.native_towers = self.plan is None and has_native_towers(module, hardware)
        """Whether native code runs the module's towers, and takes the optimizer's steps."""
        if self.native_towers:
            lower_towers(module, hardware)
        self.shards = Shards(
            module, hardware.grad_shards, num_threads=hardware.num_threads
        )
        """Of its gradients, where it has layers for images."""
        self.sharing = Sharing(hardware.ranks)
        self.descent = Descent(
            module,
            self._packed,
            optimizer,
            native=self.plan is not None or _steps_natively(module, hardware),
            max_grad_norm=max_grad_norm,
            sharing=self.sharing,
        )

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """Torch's; another may be put in its place."""
        return self.descent.optimizer

    @optimizer.setter
    def optimizer(self, value: torch.optim.Optimizer) -> None:
        self.descent.optimizer = value

    @property
    def flat(self) -> Tensor:
        """All parameters as they are now, packed; ConfigError where a network that is trained has other layers now."""
        self.rejoin()
        return self._packed.memory

    @property
    def layers(self) -> list[nn.Module]:
        """The module and all layers in it, as they are now; ConfigError as of `flat`."""
        self.rejoin()
        return self._packed.layers.now()

    def shared_parameters(self) -> list[nn.Parameter]:
        """All parameters, in the memory that native code reads."""
        self._packed.rejoin()
        return self._packed.parameters

    def rejoin(self) -> None:
        """Takes over values that the module's owner put in the place of the packed ones; ConfigError as of `flat`."""
        self._packed.check_same(trained=self.optimizer is not None)
        self._packed.rejoin()

    @property
    def learning_rate(self) -> float:
        """The optimizer's step size; ConfigError without an optimizer."""
        return self.descent.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(
                f"learning_rate must be a finite number of at least 0, got {value!r}"
            )
        self.descent.learning_rate = value

    def can_fuse(self, loss: str) -> bool:
        """Whether native code has the loss, this network and its optimizer, and gradients are this process's alone."""
        return (
            self.sharing.ranks is None
            and self.plan is not None
            and self.descent.current() is not None
            and self.plan.gradients.has_loss(loss)
        )

    def fused_step(self, fused: Fused, batch: Batch, cfg: Any) -> tuple[Any, float]:
        """One step in a single native call; see `Learner.step`."""
        native = self.descent.native
        assert self.plan is not None
        assert native is not None
        self._packed.rejoin()
        part = batch if isinstance(batch, Minibatch) else everything(batch)
        values = self.plan.gradients.loss_step(
            fused.name,
            part.steps,
            part.index,
            cfg,
            native.optimizer,
            self.descent.max_grad_norm,
        )
        norm = values.pop()
        return fused.make(values), norm

    def native_step(
        self, loss: Loss, batch: Batch, cfg: Any
    ) -> tuple[NamedTuple, float]:
        """One step on a loss in torch, with the network's forward and backward in native code."""
        assert self.plan is not None
        self._packed.rejoin()
        part = batch if isinstance(batch, Minibatch) else everything(batch)
        chosen = prepared_batch(loss, part.take(), cfg, self.sharing.ranks)
        for parameter in self._packed.parameters:
            parameter.grad = None
        weights = self._packed.memory.detach().requires_grad_()
        output = self.plan.gradients.outputs(part.steps, part.index, weights)
        value, stats = returned(loss, loss(output, chosen, cfg))
        value.backward()
        gradient = weights.grad
        if gradient is None:
            gradient = torch.zeros_like(self._packed.memory)
        step = partial(self.descent.step_packed, gradient)
        return self.sharing.around(step, stats, part)

    def torch_step(
        self, loss: Loss, batch: Batch | Sequences, cfg: Any
    ) -> tuple[NamedTuple, float]:
        """One step in torch; minibatches and transitions of a network for images in shards."""
        self.rejoin()
        whole: Any = batch.take() if isinstance(batch, Minibatch) else batch
        whole = prepared_batch(loss, whole, cfg, self.sharing.ranks)
        kinds: list[type[Any]] = []

        def part_loss(part: Any) -> tuple[Tensor, list[Tensor]]:
            state, start = getattr(part, "state", None), getattr(part, "start", None)
            output = self.module(part.obs, state, start)
            value, stats = returned(loss, loss(output, part, cfg))
            kinds.append(type(stats))
            return value, list(stats)

        whole_rows = isinstance(batch, Minibatch) and batch.whole_rows
        may_cut = isinstance(batch, Minibatch | Transitions) and not whole_rows
        parts = self.shards.parts(whole) if may_cut else [whole]
        means = self.shards.backward(part_loss, parts)
        stats = kinds[0](*means)
        return self.sharing.around(self.descent.step_reached, stats, batch)

    def loss_step(
        self, loss: Callable[[], tuple[Tensor, NamedTuple]]
    ) -> tuple[NamedTuple, float]:
        """One step on any loss in torch."""
        self.rejoin()
        owned = self.descent.owned
        value, stats = loss()
        if not self.native_towers:
            owned.zero_grad()
            value.backward()
            return self.sharing.around(self.descent.step, stats)
        for parameter in self._packed.parameters:
            parameter.grad = None
        value.backward()
        return self.sharing.around(self.descent.step_gathered, stats)

    def gradient_step(self, gradient: Tensor) -> float:
        """One step on a packed gradient; returns its norm."""
        for parameter in self._packed.parameters:
            parameter.grad = None
        step = partial(self.descent.step_packed, gradient)
        return self.sharing.around(step, ())[1]

    def state(self, *, check: bool = True) -> dict[str, Any]:
        """The module's and the optimizer's state; FloatingPointError where that is to be checked and is not finite."""
        self._packed.check_same(trained=self.optimizer is not None)
        saved: dict[str, Any] = {"module": learned_state(self.module)}
        if self.optimizer is not None:
            saved["optimizer"] = self.descent.state()
        if check:
            check_savable(self.module, saved.get("optimizer"))
        return saved

    def restore(self, state: Mapping[str, Any]) -> None:
        """Copies a saved state in; see `Learner.restore`."""
        load_weights(self.module, state["module"])
        self._packed.rejoin()
        if self.optimizer is not None:
            self.descent.restore(state["optimizer"])
        if self.plan is not None:
            self.plan.refresh_normalizer()
        self.descent.join()


def is_sharded(network: Trainable) -> bool:
    """Whether its parameters lie in parts on all ranks, which then compute as many parts of a batch."""
    return getattr(network, "sharded", False)


def _steps_natively(module: nn.Module, hardware: Hardware) -> bool:
    """Whether native code takes the optimizer's steps on gradients that torch leaves in the parameters."""
    if has_native_towers(module, hardware):
        return True
    kinds = {(p.device.type, p.dtype) for p in module.parameters()}
    large = has_images(module) or getattr(module, "steps_natively", False)
    return hardware.native and large and kinds == {("cpu", torch.float32)}


def cuts_gradients(module: nn.Module, spec: Spec, hardware: Hardware) -> bool:
    """Whether a policy's gradients are computed in shards: in native code, or those of images on the CPU."""
    if hardware.device.type != "cpu":
        return False
    memory: Any = module.initial_state
    if has_images(module) and memory(1) is None:
        return True
    if has_native_towers(module, hardware):
        return True
    sizes: dict[str, Any] = {"num_threads": 1, "act_block": 1, "grad_shards": 1}
    return hardware.native and lower(module, spec, pack(module), **sizes) is not None


def check_own(name: str, module: nn.Module, others: Mapping[str, Trainable]) -> None:
    """ConfigError where a parameter is another network's: it can lie in one flat buffer only."""
    mine = {id(parameter) for parameter in module.parameters()}
    for other, network in others.items():
        shared = (n for n, p in network.module.named_parameters() if id(p) in mine)
        first = next(shared, None)
        if first is not None:
            raise ConfigError(
                f"the network {name!r} shares the parameter {first} with {other!r} of the same learner; "
                "a network's parameters must be its own, such as those of copy.deepcopy(module)"
            )
