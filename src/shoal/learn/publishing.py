"""Publishing: a policy's weights by version, as those who act with it see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shoal.learn.weights import pack
from shoal.nets.policy import PlainPolicy
from shoal.types import ConfigError, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from shoal.learn.ranks import Ranks
    from shoal.types import Steps, Tree


MOST_SUBSETS = 1024
"""Of so many versions it is known which part of a policy they brought."""


class Subsets:
    """What each version brought, where that was a part of a policy alone."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._brought: dict[int, frozenset[str]] = {}

    def add(self, version: int, policy: nn.Module, only: Sequence[str]) -> None:
        """A version is published; `only` what lies under these names, anywhere in the paths of a policy's parts.

        Raises:
            ConfigError: nothing bears one of the names.
        """
        if not only:
            self._brought.clear()
            return
        every = [name for name, _ in policy.named_parameters()]
        every += [name for name, _ in policy.named_buffers()]
        for name in only:
            if not any(name in path.split(".") for path in every):
                raise ConfigError(
                    f"only={tuple(only)}: no parameter or buffer of the policy has {name!r} in its path; "
                    f"there are {', '.join(every[:8])}, ..."
                )
        found = (path for path in every if not set(only).isdisjoint(path.split(".")))
        self._brought[version] = frozenset(found)
        for old in sorted(self._brought)[:-MOST_SUBSETS]:
            del self._brought[old]

    def since(self, version: int, now: int) -> frozenset[str]:
        """What versions after `version` brought up to the one of `now`; none where one of them brought all."""
        wanted = range(version + 1, now + 1)
        if not all(one in self._brought for one in wanted):
            return frozenset()
        return frozenset().union(*(self._brought[one] for one in wanted))


class Published(Protocol):
    """What acts need of whoever owns a policy's weights."""

    policy: nn.Module
    version: int
    """How often the weights were published."""
    subsets: Subsets
    """What each version brought, where that was a part of them."""

    @property
    def flat(self) -> Tensor:
        """All parameters, packed."""
        ...

    def publish(self, steps: Steps | None = None, *, only: Sequence[str] = ()) -> int:
        """Makes the weights as they are a new version, and returns its number; of them `only` those, where named."""
        ...


class Frozen:
    """A policy that nobody trains, such as a past version: published as it is."""

    def __init__(self, policy: nn.Module) -> None:
        """`policy` may get other weights between two publishes."""
        self.policy, self.version, self.subsets = policy, 0, Subsets()
        pack(policy)

    @property
    def flat(self) -> Tensor:
        """All parameters as they are now, packed."""
        return pack(self.policy)

    def publish(self, steps: Steps | None = None, *, only: Sequence[str] = ()) -> int:
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
