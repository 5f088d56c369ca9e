"""Rollouts of several agents that learn side by side: collected together, learned from one agent after another."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.types import Episodes, Steps, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from shoal.stream.rollouts import Rollouts


class MemberRollouts:
    """Each agent's own rows of every rollout in turn: `agent` is who the one at hand is for.

    All rows step together, each by its agent's weights. Steps count as `env_steps` when the last agent has its part, so
    that a run ends with all of its updates, and all agents see the same progress.
    """

    def __init__(self, rollouts: Rollouts) -> None:
        """Of rollouts with a role for each agent, in their order, which nobody else may pull."""
        self.agent = rollouts.roles[0].name
        self.env_steps = self.version = 0
        self.episodes = _none(rollouts)
        self._rollouts = rollouts
        self._roles = {role.name: role for role in rollouts.roles}
        self._waiting: dict[str, Steps] = {}
        """What was collected and is not learned from yet, by agent."""
        self._at_hand: Steps | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and rows of one agent's rollout."""
        num_steps, num_rows = self._rollouts.shape
        return num_steps, num_rows // len(self._roles)

    def __iter__(self) -> MemberRollouts:
        """Itself."""
        return self

    def __next__(self) -> Steps:
        """The next agent's part of a rollout; one that has no complete step in it is passed over."""
        if self._at_hand is not None:
            raise RuntimeError(
                "pulled the next rollout before publish(): publish after every update"
            )
        self.episodes = _none(self._rollouts)
        if not self._waiting:
            found = next(self._rollouts)
            self.episodes = self._rollouts.episodes
            pairs = zip(self._roles, self._rollouts.slabs, strict=True)
            self._waiting = {
                name: found[name] for name, slab in pairs if slab.valid.any()
            }
        self.agent = next(iter(self._waiting))
        self._at_hand = self._waiting.pop(self.agent)
        if not self._waiting:
            self.env_steps = self._rollouts.env_steps
        return self._at_hand

    def explore(self, epsilon: ArrayLike, agent: str | None = None) -> None:
        """From the next rollout on, how often rows take any action instead of the best.

        Those of `agent`, or of the one at hand; before the first rollout those of all.
        """
        if agent is None and self._at_hand is None:
            asked = list(self._roles.values())
        else:
            asked = [self._roles[agent or self.agent]]
        for role in asked:
            role.explore(epsilon)

    def publish(self) -> int:
        """Makes the agent's weights as they are the next that act; returns how many rollouts all have learned from.

        Where no rollout is at hand, all agents' weights, which somebody changed between two updates.
        """
        if self._at_hand is None:
            for role in self._roles.values():
                role.source.publish(None)
            return self.version
        self._roles[self.agent].source.publish(self._at_hand)
        self._at_hand = None
        if not self._waiting:
            self.version = self._rollouts.answered()
        return self.version

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, taken after a publish: what waits to be learned from too."""
        return {
            "rollouts": self._rollouts.state(),
            "waiting": {name: _saved(steps) for name, steps in self._waiting.items()},
            "env_steps": self.env_steps,
            "version": self.version,
        }

    def restore(self, state: Mapping[str, Any]) -> list[str]:
        """Continues from `state`; returns a sentence for each episode that could not be continued."""
        lost = self._rollouts.restore(state["rollouts"])
        device = self._rollouts.acting.device
        saved = state["waiting"]
        self._waiting = {
            name: _restored(saved[name], device)
            for name in self._roles
            if name in saved
        }
        self._at_hand = None
        self.env_steps, self.version = int(state["env_steps"]), int(state["version"])
        return lost


def _none(rollouts: Rollouts) -> Episodes:
    """No episode."""
    info = {key: np.zeros(0) for key in rollouts.env.spec.info_keys}
    return Episodes(np.zeros(0), np.zeros(0, np.int64), info)


def _saved(steps: Steps) -> dict[str, Any]:
    """A rollout's tensors by name, of its final observations those that there are."""
    used = slice(0, int(steps.final_index.max()) + 1)
    held = {field.name: getattr(steps, field.name) for field in fields(steps)}
    held["final_obs"] = select(steps.final_obs, used)
    return {name: tree for name, tree in held.items() if tree is not None}


def _restored(saved: Mapping[str, Any], device: torch.device) -> Steps:
    move = partial(torch.Tensor.to, device=device, copy=True)
    held: dict[str, Any] = {"state": None}
    for name, tree in saved.items():
        held[name] = map_tree(move, tree)
    return Steps(**held)
