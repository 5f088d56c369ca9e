"""Sharded: a language model whose parameters, gradients and moments lie in parts on all ranks (FSDP2).

Zhao et al. 2023, arXiv 2304.11277; `torch.distributed.fsdp.fully_shard`. A layer is put together where it is computed,
and its gradient is summed and split again at once. So that no rank waits for ever, all of them compute as many parts of
a batch.

The first rank holds the whole weights beside its part, as they were published: those that a sampler, an evaluation and
a checkpoint read. Checkpoints look as those of one learner, and any number of learners goes on from them.
"""

from __future__ import annotations

import copy
import math
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from shoal.learn.optimizers import check_moments
from shoal.learn.sharing import Sharing
from shoal.learn.step_sizes import StepSizes
from shoal.learn.trainable import Trainable
from shoal.learn.weights import NOT_FINITE, learned_state, load_weights
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor, nn
    from torch.distributed.device_mesh import DeviceMesh

    from shoal.learn.hardware import Hardware
    from shoal.learn.ranks import Ranks

CLIP_EPS = 1e-6
"""Is added to the norm that a gradient is divided by, as torch does."""


class Sharded(Trainable):
    """A module in parts, with the optimizer of this rank's part."""

    sharded = True

    def __init__(
        self,
        module: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer] | None,
        settings: Mapping[str, Any],
        *,
        hardware: Hardware,
        max_grad_norm: float,
    ) -> None:
        """Made by a Learner; all ranks begin with the first one's weights.

        Args:
            module: with `shard_units`. Where it is trained, it stays whole on the first rank, and is empty on others.
            optimizer: a class of torch's; None where nothing is trained.
            settings: the optimizer's own.
            hardware: whose ranks share it.
            max_grad_norm: what a gradient's norm is cut to.
        """
        ranks = hardware.ranks
        assert ranks is not None
        self._ranks, self.micro_tokens = ranks, hardware.micro_tokens
        self.sharing, self.plan, self.native_towers = Sharing(ranks), None, False
        for tensor in module.state_dict().values():
            ranks.take_over(tensor)
        self.shown: nn.Module | None = None
        """The whole module as it was published, where it is trained; without weights on all ranks but the first."""
        self.module = module
        if optimizer is not None:
            self.shown, self.module = module, copy.deepcopy(module)
            if ranks.rank:
                module.to("meta")
        mesh = init_device_mesh(hardware.device.type, (ranks.size,))
        _shard(self.module, mesh)
        self._parts = _Parts(self.module, mesh, ranks)
        made = None
        if optimizer is not None:
            made = optimizer(self._parts.local, **settings)
        self.descent = cast(
            "Any", _Descent(self._parts, made, max_grad_norm, self.sharing)
        )

    @property
    def flat(self) -> Tensor:
        """This rank's parts, packed."""
        return torch.cat([part.reshape(-1) for part in self._parts.local])

    @property
    def layers(self) -> list[nn.Module]:
        """The module and all layers in it."""
        return list(self.module.modules())

    def shared_parameters(self) -> list[nn.Parameter]:
        """None: native code reads nothing of it."""
        return []

    def rejoin(self) -> None:
        """Takes over how the module that others see is asked.

        After a pass without gradients FSDP leaves the outermost parameters whole, and what is called the module's
        parameters are not those that have gradients then: they are split again.
        """
        cast("FSDPModule", self.module).reshard()
        if self.shown is not None:
            shown: Any = self.shown
            self.module.temperature = shown.temperature

    def together(self) -> AbstractContextManager[None]:
        """Around what all ranks compute together: a connection that breaks is told as whoever looks after them does."""
        return self._ranks.watched()

    def show(self) -> None:
        """Has the first rank's whole module hold the weights as they are; all ranks take part."""
        if self.shown is None:
            return
        whole = dict(self.shown.named_parameters())
        with torch.no_grad(), self.together():
            for name, value in self._parts.whole():
                if value is not None:
                    whole[name].copy_(value)

    def state(self, *, check: bool = True) -> dict[str, Any]:
        """As of one learner, on the first rank; empty on others. All ranks take part.

        FloatingPointError on all of them where it is to be checked and is not finite.
        """
        saved: dict[str, Any] = {}
        with torch.no_grad(), self.together():
            if self.shown is None:
                saved["module"] = dict(self._parts.whole())
            else:
                self.show()
                saved["module"] = learned_state(self.shown)
                saved["optimizer"] = self.descent.state()
        if check and not self._parts.finite():
            raise FloatingPointError(NOT_FINITE.format("a part of the weights"))
        return {} if self._ranks.rank else saved

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes this rank's parts of a whole state over; see `Learner.restore`."""
        saved = state["module"]
        if self.shown is not None and not self._ranks.rank:
            load_weights(self.shown, saved)
        self._parts.take(saved)
        if self.optimizer is not None:
            self.descent.restore(state["optimizer"])


class _Parts:
    """The parts of a module's parameters that this rank has."""

    def __init__(self, module: nn.Module, mesh: DeviceMesh, ranks: Ranks) -> None:
        self.ranks, self._mesh = ranks, mesh
        part_trained = bool(getattr(module, "part_trained", False))
        self._named: dict[str, DTensor] = {
            name: cast("DTensor", p)
            for name, p in module.named_parameters()
            if p.requires_grad or not part_trained
        }
        self.local = [
            torch.nn.Parameter(p.to_local().detach(), requires_grad=p.requires_grad)
            for p in self._named.values()
        ]
        """In the memory that the module's own parameters have, and their gradients once `take_gradients` was called."""

    def take_gradients(self) -> list[Tensor]:
        """The parts of the gradients, which become those of `local`."""
        found: list[Tensor] = []
        for mine, parameter in zip(self.local, self._named.values(), strict=True):
            mine.grad = None
            if parameter.grad is not None:
                mine.grad = cast("DTensor", parameter.grad).to_local()
                found.append(mine.grad)
        return found

    def whole(self) -> Iterator[tuple[str, Tensor | None]]:
        """Each parameter's name and, on the first rank, its whole value; one after another."""
        for (name, parameter), mine in zip(
            self._named.items(), self.local, strict=True
        ):
            yield name, self.joined(mine.detach(), parameter)

    def joined(self, part: Tensor, like: DTensor) -> Tensor | None:
        """On the first rank the whole of what lies in parts as `like` does."""
        apart = DTensor.from_local(
            part,
            self._mesh,
            like.placements,
            run_check=False,
            shape=like.shape,
            stride=like.stride(),
        )
        whole = apart.full_tensor()
        return None if self.ranks.rank else whole

    def cut(self, whole: Tensor, like: DTensor) -> Tensor:
        """This rank's part of a whole tensor."""
        parts = whole.chunk(self.ranks.size, dim=0)
        rank = self.ranks.rank
        return parts[rank] if rank < len(parts) else whole[:0]

    def take(self, saved: Mapping[str, Tensor]) -> None:
        """Copies this rank's parts of whole parameters in; ConfigError where they are another network's."""
        with torch.no_grad():
            for (name, parameter), mine in zip(
                self._named.items(), self.local, strict=True
            ):
                if name not in saved or saved[name].shape != parameter.shape:
                    raise ConfigError(
                        f"the checkpoint holds another network: {name} is {list(parameter.shape)} here"
                    )
                mine.copy_(self.cut(saved[name], parameter))

    @property
    def pairs(self) -> list[tuple[Tensor, DTensor]]:
        """Of each parameter that is trained this rank's part and the parameter, as an optimizer counts them."""
        return list(zip(self.local, self._named.values(), strict=True))

    def finite(self) -> bool:
        """Whether all parts on all ranks are finite."""
        found = torch.zeros(1)
        for part in self.local:
            found += float(part.detach().double().sum()) * 0.0
        self.ranks.sum(found)
        return math.isfinite(float(found))


class _Descent(StepSizes):
    """The optimizer of this rank's parts; the gradient's norm is that of all of them."""

    def __init__(
        self,
        parts: _Parts,
        optimizer: torch.optim.Optimizer | None,
        max_grad_norm: float,
        sharing: Sharing,
    ) -> None:
        super().__init__(optimizer)
        self._parts = parts
        self.max_grad_norm, self.sharing = max_grad_norm, sharing

    def step_reached(self) -> float:
        """Clips the gradient and takes the optimizer's step, unless the gradient is not finite; returns its norm."""
        with torch.no_grad():
            gradients = self._parts.take_gradients()
            squares = [x.float().square().sum() for x in gradients]
            total = torch.stack(squares).sum().reshape(1)
            self.sharing.mean(total)
            norm = float(total.sqrt())
            if math.isfinite(norm):
                if norm > self.max_grad_norm:
                    for gradient in gradients:
                        gradient.mul_(self.max_grad_norm / (norm + CLIP_EPS))
                self.owned.step()
        return norm

    def state(self) -> dict[str, Any]:
        """Torch's state of an optimizer of the whole parameters, on the first rank; all ranks take part."""
        saved = self.owned.state_dict()
        moments: dict[int, dict[str, Any]] = {}
        for number, (part, parameter) in enumerate(self._parts.pairs):
            own = saved["state"].get(number)
            if own is None:
                continue
            moments[number] = {
                name: self._parts.joined(x, parameter)
                if torch.is_tensor(x) and x.dim() and x.shape == part.shape
                else x
                for name, x in own.items()
            }
        saved["state"] = moments
        if self._rate_factor != 1:
            saved["rate_factor"] = self._rate_factor
        return saved

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes this rank's parts over; ConfigError where it is another optimizer's."""
        own = dict(saved)
        rate_factor = float(own.pop("rate_factor", 1.0))
        state: dict[int, dict[str, Any]] = {}
        for number, (_, parameter) in enumerate(self._parts.pairs):
            if number in own["state"]:
                state[number] = {
                    name: self._parts.cut(x, parameter).clone()
                    if torch.is_tensor(x) and x.shape == parameter.shape and x.dim()
                    else copy.deepcopy(x)
                    for name, x in own["state"][number].items()
                }
        try:
            self.owned.load_state_dict(own | {"state": state})
        except ValueError as error:
            raise ConfigError(
                f"the checkpoint holds another optimizer: {error}"
            ) from error
        check_moments(self.owned)
        self._rate_factor = rate_factor


def _shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Splits each of a module's units, then what is left of it; gradients are sums over all ranks."""
    # FSDP imports it for its first pass, which takes seconds and must not look like a rank that hangs.
    import_module("torch._dynamo")
    units: Any = module
    for part in (*units.shard_units, module):
        made = fully_shard(part, mesh=mesh)
        made.set_force_sum_reduction_for_comms(True)
        made.set_gradient_divide_factor(1.0)
