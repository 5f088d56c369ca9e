"""A player: a policy that acts on rows of its own, and refuses what its environment would never show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.action_guard.acting import GuardActing
from shoal.envs.action_guard.settings import ActionGuard
from shoal.envs.actions import in_own_dtypes
from shoal.envs.bounds import bounds_of
from shoal.envs.masks import MaskReader
from shoal.learn.acting import Acting, make_actor
from shoal.types import leaf_spaces, map_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from shoal.learn.acting import Actor
    from shoal.types import Bools, Spec, Tree


class Player:
    """Acts on a fixed number of rows; of a policy with memory each row's is kept here."""

    def __init__(
        self,
        policy: nn.Module,
        spec: Spec,
        num_rows: int,
        *,
        seed: int = 0,
        greedy: bool = True,
        native: bool = True,
        guard: ActionGuard | None = None,
    ) -> None:
        """Copies the policy's weights.

        Args:
            policy: in the signature of policies.
            spec: of the environment.
            num_rows: observations of each step.
            seed: of the noise that draws actions, where `greedy` is false.
            greedy: the mode of the policy's distribution.
            native: in native code where the policy can be.
            guard: what actions are held to, in each row by what it did before.

        Raises:
            ConfigError: the guard does not fit these actions, or names no function.
        """
        self.spec, self.num_rows, self.greedy = spec, num_rows, greedy
        acting = Acting(seed, native=native, values=False)
        self._actor: Actor = make_actor(policy, spec, num_rows, acting)
        self._guard = GuardActing(guard or ActionGuard(), spec)
        self._choices = _choices_of(spec)
        self._masks = MaskReader(spec)

    @property
    def options(self) -> int:
        """Places of a row's action mask."""
        return self._masks.size

    def act(self, obs: Tree, start: Bools, mask: Bools | None = None) -> Tree:
        """Actions [rows, ...] as the action space has them.

        Args:
            obs: [rows, ...] in the dtypes of the specification.
            start: [rows], where an episode begins.
            mask: [rows, options], or None; where observations hold masks, what both leave may be chosen.

        Raises:
            ValueError: numbers that are not finite, choices outside their space, or a mask that leaves nothing; the
                state is as it was.
        """
        self._check(obs)
        mask = self._mask(obs, mask)
        acted = self._actor.act(
            obs,
            start,
            slice(0, self.num_rows),
            action_mask=mask,
            greedy=self.greedy,
        )
        action = self._guard.hold(obs, acted.env_action, start)
        return map_tree(np.ascontiguousarray, in_own_dtypes(self.spec, action))

    def _mask(self, obs: Tree, given: Bools | None) -> Bools | None:
        try:
            mask = self._masks.observed(obs, self.num_rows, given)
        except ValueError as error:
            raise ValueError(
                f"{self.spec.env_id}: the observations have {error}"
            ) from None
        if mask is not None and (row := self._masks.blocked(mask)) >= 0:
            raise ValueError(
                f"{self.spec.env_id}: the action mask of row {row} leaves no option"
            )
        return mask

    def _check(self, obs: Tree) -> None:
        leaves = self.spec.observation.leaves
        values: list[NDArray[Any]] = self.spec.observation.flat(obs)
        for leaf, value, bounds in zip(leaves, values, self._choices, strict=True):
            if leaf.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    fits = np.isfinite(value.astype(np.float32))
            elif bounds is not None:
                fits = (value >= bounds[0]) & (value <= bounds[1])
            else:
                continue
            if not fits.all():
                row = int(np.argwhere(~fits)[0][0])
                raise ValueError(
                    f"{self.spec.env_id}: the observation{leaf.name} of row {row} is not finite or outside its space"
                )


def _choices_of(spec: Spec) -> list[tuple[Any, Any] | None]:
    """The least and the greatest number of each leaf of an observation that makes choices; None for a Box."""
    found: list[tuple[Any, Any] | None] = []
    for _, part in leaf_spaces(spec.observation_space):
        found.append(None if isinstance(part, spaces.Box) else bounds_of(part))
    return found
