"""Steps from outside as arrays: checked against a spec, and in the order in which one row of a memory keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from shoal.envs.names import names_by_leaf
from shoal.memory.given import (
    as_dtype,
    check_actions,
    check_observations,
    first_step,
)
from shoal.memory.replay_steps import StepArrays
from shoal.memory.slab import kept_actions
from shoal.types import ConfigError, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from shoal.types import Layout, Leaf, Spec, Tree

    Arrays = list[NDArray[Any]]

WHERE = "memory.insert"
"""What errors begin with."""


@dataclass(frozen=True, slots=True)
class GivenSteps:
    """Arrays [T, ...], or [T, B, ...] of B rows, of steps as the environment gave and took them."""

    obs: Tree
    action: Tree
    reward: Any
    next_obs: Tree
    terminated: Any
    truncated: Any


def steps_in_order(
    given: GivenSteps,
    spec: Spec,
    from_env: Callable[[Tree], Tree],
    *,
    reward_scale: float = 1.0,
) -> StepArrays:
    """The steps [B T, 1] of one row: one given row behind the other, the last step of each an end.

    Args:
        given: the steps.
        spec: what rows observe and do.
        from_env: actions [N, ...] of the environment as the policy keeps them.
        reward_scale: which rewards are multiplied by.

    Raises:
        ConfigError: what no step of the spec can be, or an observation that is not what the step before it came to; it
            names the first such step.
    """
    axes = _Axes.of(given.reward)
    numbers = axes.array("reward", given.reward, np.dtype(np.float64))
    terminated = axes.array("terminated", given.terminated, np.dtype(np.bool_))
    truncated = axes.array("truncated", given.truncated, np.dtype(np.bool_))
    obs = axes.observations("obs", given.obs, spec)
    next_obs = axes.observations("next_obs", given.next_obs, spec)
    actions = axes.actions(given.action, spec)
    axes.check_follows(spec.observation, terminated | truncated, obs, next_obs)
    reward = axes.scaled(numbers, reward_scale)
    # What is handed over no further goes on from its last observation, as after a time limit.
    truncated[-1] |= ~terminated[-1]
    ended = axes.in_order(terminated | truncated)
    kept = kept_actions(spec.action)
    done = kept.flat(from_env(spec.action.tree([axes.in_order(x) for x in actions])))
    own = [
        np.asarray(values, leaf.dtype)[:, None]
        for leaf, values in zip(kept.leaves, done, strict=True)
    ]
    came_to = [axes.in_order(leaf)[ended] for leaf in next_obs]
    return StepArrays(
        obs=spec.observation.tree([axes.in_order(leaf)[:, None] for leaf in obs]),
        action=kept.tree(own),
        reward=axes.in_order(reward)[:, None],
        terminated=axes.in_order(terminated)[:, None],
        truncated=axes.in_order(truncated)[:, None],
        final_obs=spec.observation.tree(came_to),
        start=np.roll(ended, 1)[:, None],
    )


@dataclass(frozen=True, slots=True)
class _Axes:
    """The axes [T] or [T, B] that all arrays of steps begin with."""

    shape: tuple[int, ...]

    @classmethod
    def of(cls, reward: Any) -> _Axes:
        """Those of the rewards; ConfigError where these are no array [T] or [T, B] with a step."""
        shape = _array("reward", reward).shape
        if len(shape) not in (1, 2) or 0 in shape:
            raise ConfigError(
                f"{WHERE}: reward must be an array [T] of T steps, or [T, B] of B rows, with at least one step, got "
                f"{list(shape)}"
            )
        return cls(shape)

    def array(
        self, name: str, given: Any, dtype: np.dtype[Any], shape: tuple[int, ...] = ()
    ) -> NDArray[Any]:
        """A new array of this dtype whose axes are these and those of `shape`."""
        values, wanted = _array(name, given), (*self.shape, *shape)
        if values.shape != wanted:
            raise ConfigError(
                f"{WHERE}: {name} must be an array {list(wanted)}, as reward has the axes {list(self.shape)}, got "
                f"{list(values.shape)}"
            )
        return as_dtype(WHERE, name, values, dtype, axes=len(self.shape))

    def observations(self, name: str, given: Tree, spec: Spec) -> Arrays:
        """The arrays of observations, which are within their spaces."""
        found = self._leaves(name, spec.observation, given)
        parts = leaf_spaces(spec.observation_space)
        axes = len(self.shape)
        called = names_by_leaf(spec)
        for leaf, (_, part), values, names in zip(
            spec.observation.leaves, parts, found, called, strict=True
        ):
            where = name + leaf.name
            check_observations(WHERE, where, part, values, axes=axes, names=names)
        return found

    def actions(self, given: Tree, spec: Spec) -> Arrays:
        """The arrays of actions, which are within their spaces."""
        found = self._leaves("action", spec.action, given)
        parts = leaf_spaces(spec.action_space)
        for (_, part), values in zip(parts, found, strict=True):
            check_actions(WHERE, part, values, axes=len(self.shape))
        return found

    def check_follows(
        self, layout: Layout, ended: NDArray[np.bool_], obs: Arrays, next_obs: Arrays
    ) -> None:
        """ConfigError where an episode goes on, and not with the observation that its step before came to."""
        for leaf, seen, came_to in zip(layout.leaves, obs, next_obs, strict=True):
            numbers = tuple(range(len(self.shape), seen.ndim))
            same = (came_to[:-1] == seen[1:]).all(axis=numbers)
            follows = same | ended[:-1]
            if not follows.all():
                step = first_step(follows, len(self.shape))
                raise ConfigError(
                    f"{WHERE}: next_obs{leaf.name} of step {step} is not obs{leaf.name} of the step behind it, and the "
                    "episode has not ended: give steps in their order, and set truncated where some are missing"
                )

    def scaled(self, reward: NDArray[Any], scale: float) -> NDArray[Any]:
        """Rewards as they are learned from."""
        name = "reward" if scale == 1 else f"reward times reward_scale={scale:g}"
        axes = len(self.shape)
        return as_dtype(WHERE, name, reward * scale, np.dtype(np.float32), axes=axes)

    def in_order(self, values: NDArray[Any]) -> NDArray[Any]:
        """[T, B, ...] as [B T, ...], one row behind the other; [T, ...] as it is."""
        if len(self.shape) == 1:
            return values
        steps, rows = self.shape
        return values.swapaxes(0, 1).reshape(rows * steps, *values.shape[2:])

    def _leaves(self, name: str, layout: Layout, given: Tree) -> Arrays:
        return [
            self.array(
                name + leaf.name, _part(name, leaf, given), leaf.dtype, leaf.shape
            )
            for leaf in layout.leaves
        ]


def _part(name: str, leaf: Leaf, given: Tree) -> Any:
    """The array of a leaf; ConfigError where the tree has none there."""
    part: Any = given
    for key in leaf.path:
        if isinstance(key, str) and not isinstance(part, Mapping):
            raise ConfigError(
                f"{WHERE}: {name} must be a dict of arrays, time first, as the space has {name}{leaf.name}; got "
                f"{_kind(part)}. Of a list of dicts: {{key: np.stack([one[key] for one in steps]) for key in steps[0]}}"
            )
        try:
            part = part[key]
        except (KeyError, IndexError, TypeError) as error:
            raise ConfigError(
                f"{WHERE}: there is no {name}{leaf.name}, which the space has"
            ) from error
    return part


def _kind(given: Any) -> str:
    """What somebody gave, in words."""
    kind = type(given).__name__
    if isinstance(given, list | tuple) and given:
        items = cast("list[Any]", given)
        return (
            f"a {kind} of {len(items)}, the first of them a {type(items[0]).__name__}"
        )
    return f"a {kind}"


def _array(name: str, given: Any) -> NDArray[Any]:
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise ConfigError(
            f"{WHERE}: {name} is an array with values masked out, which no step can lack"
        )
    try:
        if isinstance(given, torch.Tensor):
            given = given.detach().cpu()
            # numpy has no bfloat16.
            given = (given.float() if given.dtype == torch.bfloat16 else given).numpy()
        return np.asarray(given)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{WHERE}: {name} is no array: {error}") from error
