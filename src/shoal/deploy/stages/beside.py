"""Beside the controller: a policy that only watches, and one that acts in a share of the episodes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shoal.deploy.stages.distance import Distance
from shoal.deploy.stages.drift import Seen, numbers_of
from shoal.deploy.stages.log import Played
from shoal.types import ConfigError, check_seed, map_tree

if TYPE_CHECKING:
    from types import TracebackType

    from shoal.deploy.stages.criteria import Drifts
    from shoal.deploy.stages.drift import Drift, Reference
    from shoal.deploy.stages.log import StageLog
    from shoal.types import Spec, Tree


class Acts(Protocol):
    """A policy that acts for one row, such as a loaded agent."""

    @property
    def interventions(self) -> int:
        """How many of its actions the action guard changed."""
        ...

    def act(self, obs: Tree, /) -> Tree:
        """The action for an observation."""
        ...

    def reset(self) -> None:
        """The next observation begins an episode."""
        ...


class _Beside:
    """What both have in common: a policy that is asked at every step, and what is counted of an episode."""

    def __init__(
        self,
        agent: Acts,
        spec: Spec,
        log: StageLog,
        *,
        reference: Reference | None,
        limits: Drifts,
    ) -> None:
        self._agent, self._spec, self._limits = agent, spec, limits
        self._distance = Distance(spec)
        self.log = log
        self._all = None if reference is None else Seen(reference)
        self._episode = self._fresh(0)
        self._seen: list[np.ndarray[Any, Any]] = []
        self._interventions = agent.interventions

    @property
    def drifts(self) -> list[Drift]:
        """Of each number of an observation, over whole episodes so far, the farthest first.

        Empty before there are enough of them, or where training left nothing to compare with.
        """
        return [] if self._all is None else self._all.drifts(self._limits)

    def _ask(self, obs: Tree, action: Tree) -> Tree:
        """What the policy would do; counts how far that is from `action`, which the controller does."""
        taken = map_tree(np.asarray, action)
        self._distance.check(taken)
        own = self._agent.act(obs)
        changed = self._agent.interventions - self._interventions
        self._interventions += changed
        distance = self._distance(own, taken)
        if self._all is not None:
            leaves = [
                np.asarray(leaf)[None] for leaf in self._spec.observation.flat(obs)
            ]
            self._seen.append(numbers_of(self._spec, leaves)[0])
        before = self._episode
        self._episode = replace(
            before,
            agreed=before.agreed + self._distance.agrees(distance),
            distance=before.distance + distance,
            interventions=before.interventions + changed,
        )
        return own

    def _fresh(self, number: int) -> Played:
        """An episode of which nothing was played yet."""
        cost = 0.0 if self._spec.costs else None
        return Played(number, "controller", 0, 0.0, 0, 0.0, 0, cost)

    def _check_step(self, reward: float, cost: float | None) -> None:
        """ValueError unless these are finite numbers; asked before anything of a step is counted."""
        _check_finite("a reward", reward)
        if cost is None:
            return
        if not self._spec.costs:
            raise ValueError(
                f"steps of {self._spec.env_id} have no cost where the policy was trained; leave cost={cost!r} out"
            )
        _check_finite("a cost", cost)

    def _end_step(self, reward: float, cost: float | None, *, done: bool) -> None:
        before = self._episode
        known = before.cost is not None and cost is not None
        self._episode = replace(
            before,
            steps=before.steps + 1,
            total=before.total + float(reward),
            cost=float(before.cost or 0.0) + float(cost or 0.0) if known else None,
        )
        if done:
            self._end_episode()

    def _end_episode(self) -> None:
        seen = None
        if self._all is not None and self._seen:
            seen = Seen(self._all.reference)
            seen.add(np.stack(self._seen))
            self._all.merge(seen)
        alarmed = tuple(one.feature for one in self.drifts if one.alarmed)
        self.log.add(replace(self._episode, drifted=alarmed), seen)
        self._episode = self._fresh(self._episode.episode + 1)
        self._seen.clear()
        self._agent.reset()

    def close(self) -> None:
        """Ends the log; an episode under way is not written."""
        self.log.close()

    def __enter__(self) -> Any:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the log."""
        self.close()


class Shadow(_Beside):
    """A policy that sees what the real controller sees, and has no effect."""

    def observe(
        self,
        obs: Tree,
        action: Tree,
        reward: float,
        *,
        done: bool = False,
        cost: float | None = None,
    ) -> Tree:
        """Takes in a step of the real system, whose rows are one; what the policy would have done.

        Args:
            obs: what the controller saw.
            action: what it did.
            reward: what came of it.
            done: whether the episode ended by it.
            cost: what the step cost, where the policy was trained with costs; None: nobody knows, and of the episode
                nothing is said.

        Raises:
            ValueError: of another shape or kind than the environment's, or not finite; nothing of the step is counted.
        """
        self._check_step(reward, cost)
        own = self._ask(obs, action)
        self._end_step(reward, cost, done=done)
        return own


class Canary(_Beside):
    """A policy that acts in a share of the episodes; in the others the real controller does."""

    def __init__(
        self,
        agent: Acts,
        spec: Spec,
        log: StageLog,
        *,
        reference: Reference | None,
        limits: Drifts,
        share: float,
        seed: int,
    ) -> None:
        """`share` of the episodes in (0, 1), drawn by `seed`; ConfigError for others."""
        if not 0 < share < 1:
            raise ConfigError(f"share must lie between 0 and 1, got {share}")
        check_seed(seed)
        super().__init__(agent, spec, log, reference=reference, limits=limits)
        self.share, self.seed = share, seed
        self._asked = False

    @property
    def policy_acts(self) -> bool:
        """Whether the policy acts in the episode at hand; drawn anew for each of them."""
        key = [self.seed, self._episode.episode]
        return bool(np.random.default_rng(key).random() < self.share)

    def act(self, obs: Tree, action: Tree) -> Tree:
        """What is to be done now: the policy's own action in its episodes, else the controller's, `action`.

        Raises:
            RuntimeError: the step before was not ended by `observe`.
            ValueError: as of `Shadow.observe`.
        """
        if self._asked:
            raise RuntimeError("canary.observe(reward, done=...) ends each step")
        own = self._ask(obs, action)
        self._asked = True
        return own if self.policy_acts else action

    def observe(
        self, reward: float, *, done: bool = False, cost: float | None = None
    ) -> None:
        """What came of it; `cost` as in `Shadow.observe`.

        Raises:
            RuntimeError: nothing was done before.
            ValueError: the reward or the cost is not finite, or steps have no cost; the step goes on.
        """
        if not self._asked:
            raise RuntimeError("canary.act(obs, action) comes before canary.observe")
        self._check_step(reward, cost)
        acted = "policy" if self.policy_acts else "controller"
        self._episode = replace(self._episode, acted=acted)
        self._end_step(reward, cost, done=done)
        self._asked = False


def _check_finite(what: str, value: float) -> None:
    """ValueError unless it is a finite number."""
    try:
        good = bool(np.isfinite(value))
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{what} must be a finite number, got {value!r}")
