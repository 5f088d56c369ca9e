"""Learner: owns the weights; `step` is the only thing that changes them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import torch

from shoal.learn.answers import answers_step
from shoal.learn.hardware import Hardware
from shoal.learn.losses import fused_of, lowered_of, returned
from shoal.learn.minibatches import Minibatch
from shoal.learn.publishing import Subsets, observe
from shoal.learn.shards import has_images
from shoal.learn.statistics import Statistics
from shoal.learn.towers import frozen
from shoal.learn.trainable import Trainable, check_own, is_sharded
from shoal.learn.weights import trained_of
from shoal.types import Answers, ConfigError, Sequences, Steps

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shoal.learn.critics import ActorCriticPlan
    from shoal.learn.losses import Loss
    from shoal.learn.sharded import Sharded
    from shoal.learn.trainable import Batch

    OptimizerClass = Callable[..., torch.optim.Optimizer]

POLICY = "policy"
S = TypeVar("S", bound=NamedTuple)


def _go_on() -> None:
    """Nothing is waited for before a step."""


class Learner:
    """A policy, the networks beside it, their optimizers; and the version that those who act may see.

    Everything that a checkpoint needs of them is in `state`, and `restore` may come at any time: what native code and
    torch share is joined again.
    """

    def __init__(
        self,
        policy: nn.Module,
        optimizer: OptimizerClass,
        *,
        hardware: Hardware | None = None,
        max_grad_norm: float = math.inf,
        before_step: Callable[[], None] = _go_on,
        **settings: Any,
    ) -> None:
        """Moves the policy to the device and makes its optimizer.

        Args:
            policy: acts; its parameters are packed into one flat buffer.
            optimizer: a class of `torch.optim`, such as Adam.
            hardware: device, threads, and how minibatches are cut.
            max_grad_norm: the gradient's norm is cut to this.
            before_step: called before every gradient step, and between the parts of a long one; may take its time.
            settings: the optimizer's own, such as lr and eps.
        """
        self.hardware = hardware or Hardware()
        self.policy = policy.to(self.hardware.device)
        self.version, self.subsets = 0, Subsets()
        self.updates = self.skipped = 0
        """Gradient steps that were taken; and those that were not finite, and left everything as it was."""
        self.networks: dict[str, Trainable] = {}
        self.scheduled: dict[str, float] = {}
        """Settings in force that follow a schedule, besides the learning rate."""
        self.plans: dict[tuple[str, str], ActorCriticPlan] = {}
        """Native code of an actor beside critics, by their names."""
        self.before_step = before_step
        self._statistics = Statistics()
        self.add(POLICY, policy, optimizer, max_grad_norm=max_grad_norm, **settings)

    @property
    def flat(self) -> Tensor:
        """The policy's parameters, packed."""
        return self.networks[POLICY].flat

    @property
    def recurrent(self) -> bool:
        """Whether the policy has a memory, so that it learns from whole rows."""
        state: Any = self.policy.initial_state
        return state(1) is not None

    @property
    def learning_rate(self) -> float:
        """The step size of the policy's optimizer."""
        return self.networks[POLICY].learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.networks[POLICY].learning_rate = value

    def add(
        self,
        name: str,
        module: nn.Module,
        optimizer: OptimizerClass | None = None,
        *,
        max_grad_norm: float = math.inf,
        **settings: Any,
    ) -> Trainable:
        """Takes another network in: a critic with its optimizer, or a target network without.

        Args:
            name: how losses and checkpoints call it.
            module: its parameters must be its own.
            optimizer: a class of `torch.optim`; without one, no step changes it.
            max_grad_norm: the gradient's norm is cut to this.
            settings: the optimizer's own.

        Raises:
            ConfigError: the name is taken, a parameter is another network's, or the optimizer is no class.
        """
        if name in self.networks:
            raise ConfigError(f"the learner has a network {name!r} already")
        module = module.to(self.hardware.device)
        check_own(name, module, self.networks)
        _check_class(name, optimizer)
        made = _network_of(self.hardware, module, optimizer, settings, max_grad_norm)
        self.networks[name] = made
        return made

    def module(self, name: str) -> Any:
        """A network as it is now, to be called on a batch: values that replaced its parameters' are taken over."""
        self.networks[name].rejoin()
        return self.networks[name].module

    def step(self, loss: Loss, batch: Batch | Sequences | Answers, cfg: Any) -> Any:
        """One gradient step of the policy on the mean of `loss` over `batch`.

        The first of these that can is taken: the loss as `native/losses/` has it fused, where all steps of a rollout
        weigh alike; native forward and backward around the loss in torch; torch alone, in shards. A step whose gradient
        is not finite changes nothing and is counted. Of several ranks (`hardware.ranks`) each brings its batch, none
        takes the first way, and the step is one on the mean over the samples of all of them.

        Args:
            loss: `loss(output, batch, cfg) -> (scalar, NamedTuple of scalars)`.
            batch: a minibatch, a whole rollout, transitions or sequences of a replay memory, or answers of a language
                model, whose loss is a sum over tokens with their `weight`.
            cfg: handed to the loss.

        Returns:
            The statistics that the loss returns, detached.
        """
        self.before_step()
        stats, norm = _stepped(self, loss, batch, cfg)
        self._count(stats, norm)
        return stats

    def update(
        self,
        loss: Callable[..., tuple[Tensor, NamedTuple]],
        batch: Any,
        cfg: Any,
        *,
        of: str,
    ) -> Any:
        """One gradient step of the network `of` on a loss that may look at all of them.

        Args:
            loss: `loss(networks, batch, cfg) -> (scalar, NamedTuple of scalars)`; `networks` maps names to modules.
            batch: handed to the loss as it is.
            cfg: handed to the loss.
            of: whose parameters move; those of the others stay.

        Raises:
            ConfigError: there is no such network, it has no optimizer, or the loss returns something else.
        """
        if of not in self.networks or self.networks[of].optimizer is None:
            raise ConfigError(f"the learner has no network {of!r} with an optimizer")
        self.before_step()
        stats, norm = _updated(self, loss, batch, cfg, of)
        self._count(stats, norm)
        return stats

    def publish(self, steps: Steps | None = None, *, only: Sequence[str] = ()) -> int:
        """Makes the weights as they are a new version for those who act; returns its number.

        Observations of `steps` are merged into the policy's normalization statistics before. With `only` what has such
        a name in its path is published alone, the rest stays as it was; ConfigError where nothing has.
        """
        self.subsets.add(self.version + 1, self.policy, only)
        if steps is not None:
            observe(self.policy, steps, ranks=self.hardware.ranks)
        if is_sharded(self.networks[POLICY]):
            cast("Sharded", self.networks[POLICY]).show()
        self.version += 1
        return self.version

    def statistics(self) -> tuple[dict[str, float | Tensor], dict[str, int]]:
        """Sums and counts of all statistics since the last call, by metric name, which are forgotten."""
        return self._statistics.take()

    def state(self, *, check: bool = True) -> dict[str, Any]:
        """All that `restore` needs; arrays are the learner's own, not copies.

        FloatingPointError where they are not finite, if that is to be checked.
        """
        networks = self.networks.items()
        return {
            "networks": {name: net.state(check=check) for name, net in networks},
            "version": self.version,
            "updates": self.updates,
            "skipped": self.skipped,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes saved weights, statistics and moments over.

        Versions only grow: after a rollback the next publish makes one that nobody has acted with.

        Raises:
            ConfigError: they are another network's or another optimizer's.
        """
        _check_same_networks(set(self.networks), set(state["networks"]))
        for name, network in self.networks.items():
            network.restore(state["networks"][name])
        self.version, self.subsets = max(self.version, state["version"]), Subsets()
        self.updates, self.skipped = state["updates"], state["skipped"]

    def _count(self, stats: tuple[Any, ...], norm: float) -> None:
        if not math.isfinite(norm):
            self.skipped += 1
            return
        self.updates += 1
        self._statistics.add(stats, norm)


def _stepped(
    learner: Learner, loss: Loss, batch: Batch | Sequences | Answers, cfg: Any
) -> tuple[Any, float]:
    """What the first way that can take a step gives: statistics, and the gradient's norm."""
    network, fused = learner.networks[POLICY], fused_of(loss)
    if isinstance(batch, Answers):
        return answers_step(network, loss, batch, cfg, learner.before_step)
    if isinstance(batch, Sequences):  # networks with a memory learn them in torch
        return network.torch_step(loss, batch, cfg)
    if fused is not None and network.can_fuse(fused.name) and not _is_weighted(batch):
        return network.fused_step(fused, batch, cfg)
    if network.plan is not None:
        return network.native_step(loss, batch, cfg)
    return network.torch_step(loss, batch, cfg)


def _updated(
    learner: Learner, loss: Callable[..., Any], batch: Any, cfg: Any, of: str
) -> tuple[Any, float]:
    """What a step of the network `of` on a loss over all networks gives: statistics, and the gradient's norm."""
    network = learner.networks[of]
    native = lowered_of(loss)
    found = None if native is None else native.gradient(learner, batch, cfg)
    if native is not None and found is not None:
        numbers, gradient = found
        return native.make(numbers), network.gradient_step(gradient)
    modules = {name: other.module for name, other in learner.networks.items()}
    with frozen(_beside(learner, of)):
        return network.loss_step(lambda: returned(loss, loss(modules, batch, cfg)))


def _is_weighted(batch: Batch) -> bool:
    """Whether the steps of a rollout have weights, which no fused loss reads."""
    steps = batch.steps if isinstance(batch, Minibatch) else batch
    return isinstance(steps, Steps) and steps.weight is not None


def _beside(learner: Learner, of: str) -> Iterator[nn.Parameter]:
    """The parameters of other networks than `of` whose towers native code runs, in the memory that it reads."""
    for name, network in learner.networks.items():
        if name != of and network.native_towers:
            yield from network.shared_parameters()


def _check_class(name: str, optimizer: object) -> None:
    """ConfigError where an optimizer was made already."""
    if isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        raise ConfigError(
            f"the optimizer of {name!r} must be a class: give {kind} itself and its settings, such as lr=1e-3"
        )


def _network_of(
    hardware: Hardware,
    module: nn.Module,
    optimizer: OptimizerClass | None,
    settings: dict[str, Any],
    max_grad_norm: float,
) -> Trainable:
    """A network with its optimizer; one that can lie in parts on all ranks, where it is to."""
    if hardware.shard and hasattr(module, "shard_units"):
        from shoal.learn.sharded import Sharded  # which takes a second to import

        return Sharded(
            module,
            optimizer,
            settings,
            hardware=hardware,
            max_grad_norm=max_grad_norm,
        )
    made = _optimizer_of(module, optimizer, settings)
    return Trainable(module, made, hardware=hardware, max_grad_norm=max_grad_norm)


def _optimizer_of(
    module: nn.Module, optimizer: OptimizerClass | None, settings: dict[str, Any]
) -> torch.optim.Optimizer | None:
    """A network's optimizer, made of its class."""
    if optimizer is None:
        return None
    if has_images(module) and "fused" in inspect.signature(optimizer).parameters:
        settings = {"fused": True} | settings
    return optimizer(trained_of(module) or module.parameters(), **settings)


def _check_same_networks(there: set[str], saved: set[str]) -> None:
    for name in sorted(there - saved):
        raise ConfigError(f"the checkpoint holds no network {name!r}")
    for name in sorted(saved - there):
        raise ConfigError(
            f"the checkpoint holds a network {name!r}; add it before the first batch"
        )
