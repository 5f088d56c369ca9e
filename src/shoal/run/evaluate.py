"""Evaluation: whole episodes on rows and noise of their own, so that it changes no bit of training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.envs.costs.rows import EPISODE
from shoal.learn.acting import Acting, make_actor
from shoal.llm.tasks.source import TaskSource
from shoal.types.text import decimal

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.run.run import Run
    from shoal.types import Bools, Floats, Ready, Spec

EVALUATION_STREAM = 1
SEED_OFFSET = 1_000_000_007
MAX_STEPS = 20_000
"""Steps after which an episode of an environment without a time limit counts as endless, if nothing else is said."""


@dataclass(frozen=True, slots=True)
class Eval:
    """Evaluate beside training: `episodes` greedy episodes on `env` each time `every_steps` steps have passed.

    0 steps: never, but for the episodes that confirm a run's mean return, which are played there too.
    """

    env: VecEnv | TaskSource
    every_steps: int
    episodes: int = 20
    max_steps: int = MAX_STEPS
    told: set[str] = field(default_factory=set, compare=False)
    """Environments of whose endless episodes a warning told; it does so once."""


@dataclass(frozen=True, slots=True)
class Score:
    """Returns and lengths of the episodes played, row by row."""

    returns: Floats
    lengths: Floats
    costs: Floats | None = None
    """What the steps of each episode cost together; None where steps have no cost."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the returns."""
        return float(self.returns.std())

    def __repr__(self) -> str:
        """One line: what came of how many episodes."""
        cost = ""
        if self.costs is not None and len(self.costs):
            cost = f", cost={self.costs.mean():.4g}"
        return (
            f"Score(mean={decimal(self.mean)}, std={decimal(self.std)}{cost}, episodes={len(self.returns)}, "
            f"mean_length={self.lengths.mean():.1f})"
        )

    def numbers(self, prefix: str) -> dict[str, float]:
        """Mean and deviation of the returns by names that begin with `prefix`; of costs the worst, too."""
        found = {f"{prefix}return": self.mean, f"{prefix}std": self.std}
        if self.costs is None or not len(self.costs):
            return found
        return found | {
            f"{prefix}cost": float(self.costs.mean()),
            f"{prefix}cost_std": float(self.costs.std()),
            f"{prefix}cost_worst": float(self.costs.max()),
        }


def _go_on() -> None:
    """Nothing is waited for."""


def play_beside(run: Run, evaluation: Eval, policy: nn.Module, episodes: int) -> float:
    """The mean of greedy episodes beside training, which is logged; the policy acts where it learns."""
    s = run.settings
    acting = Acting(s.seed, EVALUATION_STREAM, torch.device(s.device), native=s.native)
    score = evaluate(
        policy,
        evaluation.env,
        episodes=episodes,
        acting=acting,
        max_steps=evaluation.max_steps,
        told=evaluation.told,
        between=run.meter.halt.check,
    )
    run.log(score.numbers("eval/"))
    return score.mean


def evaluate(
    policy: nn.Module,
    env: VecEnv | TaskSource,
    *,
    episodes: int,
    acting: Acting,
    greedy: bool = True,
    max_steps: int = MAX_STEPS,
    told: set[str] | None = None,
    between: Callable[[], None] = _go_on,
) -> Score:
    """Plays `episodes` fresh episodes, shared out evenly over the rows, so that short ones are not favored.

    Args:
        policy: acts unchanged by a snapshot.
        env: reset here; rows whose share is played go on but no longer count.
        episodes: at least 1; of several agents, so many games: what each agent who was in them came to counts.
        acting: seed and device; the environment's seeds are far from training's.
        greedy: the distribution's mode instead of a sample.
        max_steps: an episode that goes on after as many, and after a time limit that is known, counts as it is.
        told: environments of which this was said before; it is added there.
        between: called before each step; may take its time.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    if isinstance(env, TaskSource):
        return _answered(
            policy, env, episodes=episodes, seed=acting.seed, between=between
        )
    rows = env.num_rows
    start, everyone = np.ones(rows, np.bool_), slice(0, rows)
    env.reset(acting.seed + SEED_OFFSET)
    ready = env.recv()
    tally = _Tally(env, ready, episodes)
    bound = max(max_steps, env.spec.max_episode_steps or 0)
    actor = make_actor(policy, env.spec, rows, acting)
    while tally.left.any():
        between()
        acted = actor.act(
            ready.obs, start, everyone, action_mask=ready.action_mask, greedy=greedy
        )
        turn = None if ready.turn is None else ready.turn.copy()
        env.send(everyone, acted.env_action)
        ready = env.recv()
        mark_starts(start, ready, turn)
        tally.note(ready)
        tally.pass_on(env.dropped)
        tally.end_endless(env.spec, bound, told if told is not None else set())
    return tally.score()


def _answered(
    policy: Any,
    task: TaskSource,
    *,
    episodes: int,
    seed: int,
    between: Callable[[], None],
) -> Score:
    """The score of a language model's most probable answers to so many prompts of a task."""
    from shoal.run.answered import answered

    return Score(*answered(policy, task, episodes=episodes, seed=seed, between=between))


def mark_starts(start: Bools, ready: Ready, turn: Bools | None) -> None:
    """Sets in `start` [B] which rows act on the first observation of an episode next.

    `turn` are the rows whose action counted in the step that came to `ready`; None where all rows always act. A row
    that waits for its turn keeps what it remembers, and its start where it has not acted yet.
    """
    ended = ready.terminated | ready.truncated
    start[:] = ended | (~ready.valid if turn is None else start & ~turn)


def _warn_of_endless(spec: Spec, row: int, max_steps: int) -> None:
    """Says what ends an endless episode: another limit where a wrapper takes the environment's own back."""
    advice = "Give the environment a time limit, or set eval_max_steps (shoal eval: --max-steps)"
    if spec.max_episode_steps is not None:
        advice = (
            f"Its time limit of {spec.max_episode_steps:,} steps is taken back by a wrapper: mend that, or train with "
            "preprocessing.max_episode_steps, which ends episodes outside of all wrappers"
        )
    warnings.warn(
        f"{spec.env_id}: the greedy episode of row {row} has not ended after {max_steps:,} steps; "
        f"its return so far counts for all that its row had left. {advice}",
        stacklevel=4,
    )


class _Tally:
    """What the rows have played, and what each has left to play."""

    def __init__(self, env: VecEnv, first: Ready, episodes: int) -> None:
        """`first`: what the reset gave."""
        rows, agents = env.num_rows, env.spec.num_agents
        worlds = rows // agents
        shares = np.full(worlds, episodes // worlds)
        shares += np.arange(worlds) < episodes % worlds
        self.left: NDArray[np.int_] = np.repeat(shares, agents)
        """Episodes that still count; games, where agents come and go [B]."""
        self.returns: list[list[float]] = [[] for _ in range(rows)]
        self.lengths: list[list[float]] = [[] for _ in range(rows)]
        self.costs: list[list[float]] = [[] for _ in range(rows)]
        """Nothing of rows whose steps have no cost."""
        self._costed = env.spec.costs
        self._running = np.zeros((3, rows))
        """Return, steps and cost of what is under way."""
        self._there = np.ones(rows, np.bool_)
        if first.turn is not None:
            self._there[:] = first.turn

    def note(self, ready: Ready) -> None:
        """Takes a step of all rows in."""
        count = len(self.left)
        cost = np.zeros(count) if ready.cost is None else ready.cost
        self._running += ready.reward, np.ones(count), cost
        over = ready.over
        for row in np.flatnonzero(over & (self.left > 0)):
            self.returns[row].append(float(ready.episode_return[row]))
            self.lengths[row].append(float(ready.episode_length[row]))
            if self._costed:
                self.costs[row].append(float(ready.info[EPISODE][row]))
        if ready.turn is None or ready.game_over is None:
            self.left[over & (self.left > 0)] -= 1
            self._running[:, over] = 0
            return
        self.left[ready.game_over & (self.left > 0)] -= 1
        self._running[0, over] = 0
        self._running[:, ready.game_over] = 0
        self._there &= ~(over | ready.game_over)
        self._there |= ready.turn

    def pass_on(self, dropped: Bools) -> None:
        """What dropped rows have not played goes to the others, one after the other."""
        going_on = np.flatnonzero(~dropped)
        for row in np.flatnonzero(dropped):
            for number in range(self.left[row]):
                self.left[going_on[number % len(going_on)]] += 1
            self.left[row] = 0

    def score(self) -> Score:
        """What was played, row by row."""
        returns, lengths, costs = (
            np.array(list(chain.from_iterable(of_rows)))
            for of_rows in (self.returns, self.lengths, self.costs)
        )
        return Score(returns, lengths, costs if self._costed else None)

    def end_endless(self, spec: Spec, max_steps: int, told: set[str]) -> None:
        """What an episode without an end has come to counts for all that its row had left."""
        late = (self._running[1] >= max_steps) & (self.left > 0)
        if not late.any():
            return
        endless = np.flatnonzero(late)
        if spec.env_id not in told:
            _warn_of_endless(spec, endless[0], max_steps)
            told.add(spec.env_id)
        for row in endless[self._there[endless]]:
            self.returns[row] += [float(self._running[0, row])] * self.left[row]
            self.lengths[row] += [float(self._running[1, row])] * self.left[row]
            if self._costed:
                self.costs[row] += [float(self._running[2, row])] * self.left[row]
        self.left[endless] = 0
