"""Evaluation: whole episodes on rows and noise of their own, so that it changes no bit of training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from shoal.learn.acting import Acting, make_actor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.run.run import Run
    from shoal.types import Bools, Floats

EVALUATION_STREAM = 1
SEED_OFFSET = 1_000_000_007
LONGEST_EPISODE = 20_000
"""Steps after which an episode of an environment without a time limit counts as endless."""


@dataclass(frozen=True, slots=True)
class Eval:
    """Evaluate beside training: `episodes` greedy episodes on `env` each time `every_steps` steps have passed."""

    env: VecEnv
    every_steps: int
    episodes: int = 20


@dataclass(frozen=True, slots=True)
class Score:
    """Returns and lengths of the episodes played, row by row."""

    returns: Floats
    lengths: Floats

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the returns."""
        return float(self.returns.std())


def play_beside(run: Run, evaluation: Eval, policy: nn.Module) -> float:
    """The mean of greedy episodes beside training, which is logged; the policy acts where it learns."""
    s = run.settings
    acting = Acting(s.seed, EVALUATION_STREAM, torch.device(s.device), native=s.native)
    episodes = evaluation.episodes
    score = evaluate(policy, evaluation.env, episodes=episodes, acting=acting)
    run.log({"eval/return": score.mean, "eval/std": score.std})
    return score.mean


def evaluate(
    policy: nn.Module,
    env: VecEnv,
    *,
    episodes: int,
    acting: Acting,
    greedy: bool = True,
) -> Score:
    """Plays `episodes` fresh episodes, shared out evenly over the rows, so that short ones are not favored.

    Args:
        policy: acts unchanged by a snapshot.
        env: reset here; rows whose share is played go on but no longer count.
        episodes: at least 1; of several agents, each one's returns and lengths count.
        acting: seed and device; the environment's seeds are far from training's.
        greedy: the distribution's mode instead of a sample.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    rows, agents = env.num_rows, env.spec.num_agents
    worlds = rows // agents
    shares = np.repeat(
        np.full(worlds, episodes // worlds) + (np.arange(worlds) < episodes % worlds),
        agents,
    )
    start, everyone = np.ones(rows, np.bool_), slice(0, rows)
    returns: list[list[float]] = [[] for _ in range(rows)]
    lengths: list[list[float]] = [[] for _ in range(rows)]
    env.reset(acting.seed + SEED_OFFSET)
    ready = env.recv()
    actor = make_actor(policy, env.spec, rows, acting)
    running = np.zeros((2, rows))  # return and length of the episode under way
    while any(len(returns[row]) < shares[row] for row in range(rows)):
        acted = actor.act(
            ready.obs, start, everyone, action_mask=ready.action_mask, greedy=greedy
        )
        acted_rows = None if ready.turn is None else ready.turn.copy()
        env.send(everyone, acted.env_action)
        ready = env.recv()
        ended = ready.terminated | ready.truncated
        over = ended & (ready.episode_length > 0)
        start[:] = ended | (~ready.valid if acted_rows is None else start & ~acted_rows)
        running += ready.reward, np.ones(rows)
        for row in np.flatnonzero(over & ready.valid):
            if len(returns[row]) < shares[row]:
                returns[row].append(float(ready.episode_return[row]))
                lengths[row].append(float(ready.episode_length[row]))
        running[:, over] = 0
        _pass_on(shares, returns, env.dropped)
        if env.spec.max_episode_steps is None:
            _end_endless(env.spec.env_id, shares, returns, lengths, running)
    return Score(np.array(sum(returns, [])), np.array(sum(lengths, [])))  # noqa: RUF017


def _end_endless(
    env_id: str,
    shares: NDArray[np.int_],
    returns: list[list[float]],
    lengths: list[list[float]],
    running: NDArray[np.float64],
) -> None:
    """What an episode without an end has come to counts for all that its row had left."""
    late = running[1] >= LONGEST_EPISODE
    endless = [r for r in np.flatnonzero(late) if len(returns[r]) < shares[r]]
    if not endless:
        return
    warnings.warn(
        f"{env_id}: the greedy episode of row {endless[0]} has not ended after {LONGEST_EPISODE:,} "
        "steps; its return so far counts for all that its row had left. Give the environment a time limit",
        stacklevel=3,
    )
    for row in endless:
        missing = shares[row] - len(returns[row])
        returns[row] += [float(running[0, row])] * missing
        lengths[row] += [float(running[1, row])] * missing


def _pass_on(
    shares: NDArray[np.int_], returns: list[list[float]], dropped: Bools
) -> None:
    """What dropped rows have not played goes to the others, one after the other."""
    going_on = np.flatnonzero(~dropped)
    for row in np.flatnonzero(dropped):
        for number in range(shares[row] - len(returns[row])):
            shares[going_on[number % len(going_on)]] += 1
        shares[row] = len(returns[row])
