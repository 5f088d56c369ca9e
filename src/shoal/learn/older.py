"""Older weights of the policy itself, as a network beside it: a teacher or an opponent that follows behind."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from shoal.learn.learner import Learner
    from shoal.learn.trainable import Trainable

WORDS = (
    "first, version:-N (such as version:-10) or average:DECAY (such as average:0.99)"
)
"""How older weights are named."""
POLICY, NEXT = "policy", "_next"
_VERSION = re.compile(r"version:-([1-9][0-9]{0,8})")
_AVERAGE = re.compile(r"average:(0?\.[0-9]{1,12})")


@dataclass(frozen=True, slots=True)
class Age:
    """Which older weights."""

    versions: int = 0
    """So many versions ago at least, and less than twice as many: two copies take turns. 0: those of the beginning."""
    decay: float = 0.0
    """Above 0: the exponential average, of which so much stays at each version."""


def age_of(name: str) -> Age | None:
    """Which older weights a name means; None where it means something else.

    Raises:
        ConfigError: it begins as one of these and goes on otherwise.
    """
    if name == "first":
        return Age()
    version, average = _VERSION.fullmatch(name), _AVERAGE.fullmatch(name)
    if version is not None:
        return Age(versions=int(version[1]))
    if average is not None and float(average[1]) > 0:
        return Age(decay=float(average[1]))
    if name.startswith(("version:", "average:")):
        raise ConfigError(f"{name!r} names no older weights; write {WORDS}")
    return None


class Older:
    """A network of the learner's that holds older weights of its policy. Checkpoints hold it with the others."""

    def __init__(self, learner: Learner, name: str, age: Age) -> None:
        """Begins as the policy is.

        Args:
            learner: takes the network in, before the first batch.
            name: of the network.
            age: which weights.

        Raises:
            ConfigError: the name is taken.
        """
        self._learner, self._age = learner, age
        self.network: Trainable = learner.add(name, _copied(learner.policy))
        self._next: Trainable | None = None
        if age.versions:
            self._next = learner.add(name + NEXT, _copied(learner.policy))

    @property
    def module(self) -> Any:
        """The policy with its older weights."""
        self.network.rejoin()
        return self.network.module

    def follow(self) -> bool:
        """Called after each published version; whether the weights are others now."""
        age, policy = self._age, self._learner.policy
        if age.decay:
            _mix(self.module, policy, 1 - age.decay)
            return True
        if self._next is None or self._learner.version % age.versions:
            return False
        self._next.rejoin()
        _mix(self.module, self._next.module, 1.0)
        _mix(self._next.module, policy, 1.0)
        return True


class Fixed:
    """Another network of the learner's, whose weights stay."""

    def __init__(self, network: Trainable) -> None:
        """Of this one."""
        self.network = network

    @property
    def module(self) -> Any:
        """It."""
        return self.network.module

    def follow(self) -> bool:
        """Never."""
        return False


def beside(
    learner: Learner, name: str, which: str, load: Callable[[], nn.Module]
) -> Older | Fixed:
    """A network beside the policy: older weights of it, or another model.

    Args:
        learner: takes it in, before the first batch.
        name: of the network.
        which: `first`, `version:-N`, `average:DECAY`; or what `load` is for.
        load: gives the other model.

    Raises:
        ConfigError: the name is taken, or nearly names older weights.
    """
    age = age_of(which)
    if age is None:
        return Fixed(learner.add(name, load()))
    return Older(learner, name, age)


def _copied(policy: nn.Module) -> nn.Module:
    """The policy with weights of its own; what is no weight, such as a tokenizer, is shared."""
    tokenizer = getattr(policy, "tokenizer", None)
    made = copy.deepcopy(
        policy, {} if tokenizer is None else {id(tokenizer): tokenizer}
    )
    return made.requires_grad_(False)  # noqa: FBT003 (torch's)


@torch.no_grad()
def _mix(into: nn.Module, other: nn.Module, share: float) -> None:
    """Moves weights towards others by a share of the way; what no step changes stays."""
    learned = {n for n, p in other.named_parameters() if p.requires_grad}
    others = dict(other.named_parameters())
    for name, parameter in into.named_parameters():
        if learned and name not in learned:
            continue
        if share == 1.0:
            parameter.copy_(others[name])
        else:
            parameter.lerp_(others[name], share)
