"""Visits: what a policy saw, chose and expected in whole greedy episodes, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from shoal.learn.acting import make_actor
from shoal.run.evaluate import SEED_OFFSET, mark_starts
from shoal.types import ConfigError, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.acting import Acting, Actor
    from shoal.types import Bools, Floats, Ready, Spec, Tree

    Ints = NDArray[np.int64]

MOST_STEPS = 200_000
"""Steps of all episodes together that are kept."""


@dataclass(frozen=True)
class Visits:
    """N steps of whole episodes, one episode after another."""

    leaves: list[NDArray[Any]]
    """What was observed: the leaves of the observations, each [N, ...]."""
    state: list[Tree]
    """The recurrent state of a row before each step, of N; None of a policy without a memory."""
    start: Bools
    action: list[Tree]
    """What was chosen, as the environment takes it, of N."""
    value: Floats
    """What the critic expected; zeros where the policy has none."""
    reward: Floats
    episode: Ints
    """Which episode a step is of."""
    last_value: Floats
    """Of each episode: what the critic expected after its last step; 0 where it terminated."""
    cost: Floats | None = None
    """What each step cost [N]; None where steps have no cost."""
    mask: Bools | None = None
    """Which options were allowed at each step [N, n]; None where all are."""

    @property
    def episodes(self) -> int:
        """How many there are."""
        return len(self.last_value)

    def returns(self) -> Floats:
        """The return of each episode, without a discount."""
        totals = np.zeros(self.episodes)
        np.add.at(totals, self.episode, self.reward)
        return totals

    def costs(self) -> Floats | None:
        """What each episode cost; None where steps have no cost."""
        if self.cost is None:
            return None
        totals = np.zeros(self.episodes)
        np.add.at(totals, self.episode, self.cost)
        return totals

    def to_go(self, gamma: float, scale: float) -> Floats:
        """Discounted rewards, each times `scale`, from each step on [N]; what follows a cut is the critic's value."""
        found = np.zeros(len(self.reward))
        after = 0.0
        for at in range(len(found) - 1, -1, -1):
            if at + 1 == len(found) or self.episode[at + 1] != self.episode[at]:
                after = float(self.last_value[self.episode[at]])
            after = scale * self.reward[at] + gamma * after
            found[at] = after
        return found


class _Row:
    """The episode that a row plays."""

    def __init__(self) -> None:
        self.steps: list[tuple[list[NDArray[Any]], Tree, bool, Tree, float]] = []
        self.rewards: list[float] = []
        self.costs: list[float] = []
        self.masks: list[Bools] = []

    def note(self, ready: Ready, masks: Bools | None, number: int) -> None:
        """What came of a step of the row of this number; `masks`: of all rows, before it."""
        if masks is not None:
            self.masks.append(masks[number])
        self.rewards.append(float(ready.reward[number]))
        if ready.cost is not None:
            self.costs.append(float(ready.cost[number]))


def visit(
    policy: nn.Module, env: VecEnv, *, episodes: int, acting: Acting, max_steps: int
) -> Visits:
    """Plays greedy episodes, the first ones of an evaluation with this seed.

    They are shared out evenly over the rows, so that short ones are not favored.

    Args:
        policy: acts unchanged by a snapshot.
        env: rows that are reset here.
        episodes: at least 1.
        acting: seed and device.
        max_steps: an episode that goes on after as many is cut.

    Raises:
        ConfigError: rows of several agents.
    """
    spec, rows = env.spec, env.num_rows
    _check_alone(spec)
    env.reset(acting.seed + SEED_OFFSET)
    ready = env.recv()
    actor = make_actor(policy, spec, rows, acting)
    start, everyone = np.ones(rows, np.bool_), slice(0, rows)
    playing = [_Row() for _ in range(rows)]
    done: list[tuple[_Row, float]] = []
    left, count = np.bincount(np.arange(episodes) % rows, minlength=rows), 0
    while left.any() and count < MOST_STEPS:
        seen = spec.observation.flat(map_tree(np.copy, ready.obs))
        memory = _copied(actor.state)
        masks = None if ready.action_mask is None else ready.action_mask.copy()
        acted = actor.act(
            ready.obs, start, everyone, action_mask=ready.action_mask, greedy=True
        )
        chosen, begun = map_tree(np.copy, acted.env_action), start.copy()
        values = np.zeros(rows) if acted.value is None else acted.value.copy()
        env.send(everyone, acted.env_action)
        ready = env.recv()
        mark_starts(start, ready, None)
        for number, row in enumerate(playing):
            if not ready.valid[number] or not left[number]:
                continue
            one = [leaf[number] for leaf in seen]
            step = one, _at(memory, number), bool(begun[number])
            row.steps.append((*step, select(chosen, number), float(values[number])))
            row.note(ready, masks, number)
            count += 1
            over = bool(ready.terminated[number] | ready.truncated[number])
            if not over and len(row.rewards) < max_steps:
                continue
            after = 0.0
            if not ready.terminated[number]:
                after = _value_after(actor, ready, number, over=over)
            done.append((row, after))
            left[number] -= 1
            playing[number] = _Row()
    if not done:
        raise ConfigError(
            f"{spec.env_id}: no episode ended within {count:,} steps; give a smaller --max-steps"
        )
    return _joined(done)


def _check_alone(spec: Spec) -> None:
    """ConfigError where there are several agents."""
    if spec.num_agents > 1:
        raise ConfigError(
            f"{spec.env_id} has several agents; an explanation is of one policy in one observation: explain an "
            "environment of one agent"
        )


def _value_after(actor: Actor, ready: Ready, number: int, *, over: bool) -> float:
    """What the critic expects after the last step of a row's episode that did not terminate."""
    rows = np.array([number])
    obs = select(ready.final_obs if over else ready.obs, rows)
    return float(actor.value(obs, np.zeros(1, np.bool_), rows)[0])


def _copied(state: Tree) -> Tree:
    return None if state is None else map_tree(Tensor.clone, state)


def _at(state: Tree, row: int) -> Tree:
    return None if state is None else select(state, row)


def _joined(done: Sequence[tuple[_Row, float]]) -> Visits:
    steps = [step for row, _ in done for step in row.steps]
    leaves = [np.stack(leaf) for leaf in zip(*(step[0] for step in steps), strict=True)]
    lengths = [len(row.rewards) for row, _ in done]
    costs = [cost for row, _ in done for cost in row.costs]
    masks = [mask for row, _ in done for mask in row.masks]
    return Visits(
        leaves,
        [step[1] for step in steps],
        np.array([step[2] for step in steps]),
        [step[3] for step in steps],
        np.array([step[4] for step in steps], np.float64),
        np.array([reward for row, _ in done for reward in row.rewards], np.float64),
        np.repeat(np.arange(len(done)), lengths),
        np.array([value for _, value in done], np.float64),
        np.array(costs) if costs else None,
        np.stack(masks).astype(np.bool_) if masks else None,
    )
