"""Publishing: a policy's weights by version, as those who act with it see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shoal.learn.weights import pack
from shoal.nets.policy import PlainPolicy
from shoal.types import map_tree, select

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from shoal.learn.ranks import Ranks
    from shoal.types import Steps, Tree


class Published(Protocol):
    """What acts need of whoever owns a policy's weights."""

    policy: nn.Module
    version: int
    """How often the weights were published."""

    @property
    def flat(self) -> Tensor:
        """All parameters, packed."""
        ...

    def publish(self, steps: Steps | None = None) -> int:
        """Makes the weights as they are a new version, and returns its number."""
        ...


class Frozen:
    """A policy that nobody trains, such as a past version: published as it is."""

    def __init__(self, policy: nn.Module) -> None:
        """`policy` may get other weights between two publishes."""
        self.policy, self.version = policy, 0
        pack(policy)

    @property
    def flat(self) -> Tensor:
        """All parameters as they are now, packed."""
        return pack(self.policy)

    def publish(self, steps: Steps | None = None) -> int:
        """Counts the version up; statistics of observations stay as they are."""
        self.version += 1
        return self.version


def observe(policy: nn.Module, steps: Steps, *, ranks: Ranks | None = None) -> None:
    """Merges the valid observations of a rollout into a policy's normalization statistics, if it has any.

    `encoder.observe` gets them as [N, ...], in the order of (step, row): those of all `ranks` where there are several.
    A policy in eval mode keeps its own.
    """
    merge = _merging(policy)
    if merge is None:
        return
    obs, valid = steps.obs, steps.valid
    if ranks is not None:
        obs, valid = ranks.rows(obs), ranks.rows(valid)
    merge(valid_observations(obs, valid))


def observe_all(policy: nn.Module, obs: Tree) -> None:
    """Merges observations [N, ...] into a policy's normalization statistics, if it has any."""
    merge = _merging(policy)
    if merge is not None:
        merge(obs)


def observes(policy: nn.Module) -> bool:
    """Whether a policy has statistics that `observe` would merge something into."""
    return _merging(policy) is not None


def _merging(policy: nn.Module) -> Callable[[Tree], object] | None:
    """What takes observations [N, ...] into the statistics of a policy; None where it has none or keeps its own."""
    inner = policy.module if isinstance(policy, PlainPolicy) else policy
    encoder = getattr(inner, "encoder", None)
    wanted = policy.training and getattr(encoder, "normalizes", True)
    return getattr(encoder, "observe", None) if wanted else None


def valid_observations(obs: Tree, valid: Tensor) -> Tree:
    """Of observations [T, B, ...] those of the steps that count, [N, ...]."""
    if bool(valid.all()):
        return map_tree(_flatten, obs)
    return select(obs, valid)


def _flatten(x: Tensor) -> Tensor:
    return x.flatten(0, 1)
