"""Recording: whole episodes of a policy, as a data set that it or another one can learn from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from shoal.envs.actions import in_own_dtypes
from shoal.learn.acting import make_actor
from shoal.memory.data_file import DataWriter, Episode
from shoal.run.evaluate import MAX_STEPS, SEED_OFFSET, mark_starts
from shoal.types import ConfigError, choices, leaf_spaces, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.acting import Acting
    from shoal.types import Acted, Ready, Spec, Tree

VERSIONED = re.compile(r"[-_\w]+-v\d+")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A data set that was written: its folder, episodes, steps, and the mean of the episodes' returns."""

    path: Path
    episodes: int
    steps: int
    mean_return: float
    mean_cost: float | None = None
    """Of the episodes; None where steps have no cost."""


def record(
    policy: nn.Module,
    env: VecEnv,
    folder: Path,
    *,
    episodes: int,
    acting: Acting,
    greedy: bool = True,
    max_steps: int = MAX_STEPS,
    algo: str = "",
) -> Recorded:
    """Plays `episodes` fresh episodes, shared out evenly over the rows, and writes them in the order of their ends.

    Args:
        policy: acts unchanged by a snapshot.
        env: reset here.
        folder: of the data set, which is not there yet.
        episodes: at least 1; an end for learning only, such as a life lost, ends one.
        acting: seed and device.
        greedy: the distribution's mode instead of a sample.
        max_steps: an episode that goes on after as many is written as truncated, and what follows as another one.
        algo: what the metadata say of who acted.

    Raises:
        ConfigError: several agents or action masks, the folder is there, or h5py is not installed.
    """
    if episodes < 1 or max_steps < 1:
        raise ConfigError(
            f"episodes and max_steps must be at least 1, got {episodes} and {max_steps}"
        )
    env.reset(acting.seed + SEED_OFFSET)
    ready = env.recv()
    _check_recorded(spec := env.spec)
    writer = DataWriter(folder, spec, about_of(spec, folder, algo))
    try:
        rows = [_Row(spec, select(ready.obs, row)) for row in range(env.num_rows)]
        shares = np.bincount(np.arange(episodes) % len(rows), minlength=len(rows))
        actor = make_actor(policy, spec, len(rows), acting)
        likely = not greedy and _only_choices(spec) and not spec.guarded
        start, everyone = np.ones(len(rows), np.bool_), slice(0, len(rows))
        totals: list[tuple[float, float]] = []
        while shares.any():
            acted = actor.act(ready.obs, start, everyone, greedy=greedy)
            actions, ready = _stepped(env, acted.env_action)
            mark_starts(start, ready, None)
            for number in np.flatnonzero(shares).tolist():
                told = _likelihood(acted, number) if likely else None
                episode = rows[number].note(
                    ready, number, select(actions, number), max_steps, told
                )
                if episode is not None:
                    writer.add(episode)
                    totals.append(_totals(episode))
                    shares[number] -= 1
            shares[env.dropped] = 0
        writer.close()
    except BaseException:
        writer.discard()
        raise
    return Recorded(folder, writer.episodes, writer.steps, *_means(spec, totals))


def _means(spec: Spec, totals: list[tuple[float, float]]) -> tuple[float, float | None]:
    """What an episode returned on average, and what it cost; None where steps have no cost."""
    mean, cost = np.mean(totals, axis=0).tolist()
    return mean, cost if spec.costs else None


def _totals(episode: Episode) -> tuple[float, float]:
    """What an episode returned, and what it cost; 0 where its steps have no cost."""
    cost = 0.0 if episode.costs is None else float(episode.costs.sum())
    return float(episode.rewards.sum()), cost


def _stepped(env: VecEnv, action: Tree) -> tuple[Tree, Ready]:
    """Has all rows step; what they did, an action guard's changes included, in the space's own dtypes."""
    chosen = map_tree(np.copy, action)
    env.send(slice(0, env.num_rows), action)
    ready = env.recv()
    executed = chosen if ready.executed is None else map_tree(np.copy, ready.executed)
    return in_own_dtypes(env.spec, executed), ready


def _check_recorded(spec: Spec) -> None:
    """ConfigError where a data set would lack something of the steps."""
    if spec.masked or spec.num_agents > 1:
        why = "action masks" if spec.masked else "several agents"
        raise ConfigError(f"{spec.env_id} has {why}, which data sets do not hold")


def _likelihood(acted: Acted, row: int) -> float | None:
    """The log-probability of what a row did."""
    return None if acted.log_prob is None else float(acted.log_prob[row])


def _only_choices(spec: Spec) -> bool:
    """Whether actions have probabilities; of a Box a policy keeps other numbers than the environment takes."""
    return all(choices(part) for _, part in leaf_spaces(spec.action_space))


def free_folder(env: str, algo: str, above: str = "datasets") -> Path:
    """ABOVE/ENV/ALGO-vN with the first number that is free."""
    home = Path(above) / _plain(env)
    return next(
        folder
        for number in count()
        if not (folder := home / f"{_plain(algo)}-v{number}").exists()
    )


def about_of(spec: Spec, folder: Path, algo: str) -> Mapping[str, str]:
    """What metadata say of the environment and of who acted; Minari's id is the folder's name with a version."""
    name, above = _plain(folder.name), _plain(spec.env_id)
    name = name if VERSIONED.fullmatch(name) else f"{name}-v0"
    about = {
        "dataset_id": f"{above}/{name}" if folder.parent.name == above else name,
        "env_id": spec.env_id,
        "algorithm_name": algo,
    }
    registered = gym.registry.get(spec.env_id)
    if registered is not None:
        try:
            about["env_spec"] = registered.to_json()
        except (TypeError, ValueError, json.JSONDecodeError):  # it holds an object
            return about
    return about


def _plain(name: str) -> str:
    """A name of the signs that Minari's ids have."""
    return re.sub(r"[^-_\w]+", "_", name)


class _Row:
    """What a row has done since its episode began."""

    def __init__(self, spec: Spec, obs: Tree) -> None:
        self.spec = spec
        self._begin(obs)

    def note(
        self,
        ready: Ready,
        row: int,
        action: Tree,
        max_steps: int,
        log_prob: float | None = None,
    ) -> Episode | None:
        """Takes a step in, of whose action `log_prob` is known or not; the episode that ended with it."""
        now = select(ready.obs, row)
        if not ready.valid[row]:  # a step that only reset the row
            self._begin(now)
            return None
        terminated, truncated = bool(ready.terminated[row]), bool(ready.truncated[row])
        ended = terminated or truncated
        self.actions.append(action)
        self.rewards.append(float(ready.reward[row]))
        if log_prob is not None:
            self.log_probs.append(log_prob)
        if ready.cost is not None:
            self.costs.append(float(ready.cost[row]))
        self._see(select(ready.final_obs, row) if ended else now)
        late = len(self.rewards) >= max_steps and not ended
        if not (ended or late):
            return None
        flags = np.zeros((2, len(self.rewards)), np.bool_)
        flags[:, -1] = terminated, truncated or late
        episode = Episode(
            stacked(self.obs),
            stacked(self.actions),
            np.array(self.rewards),
            flags[0],
            flags[1],
            np.array(self.log_probs) if self.log_probs else None,
            np.array(self.costs) if self.costs else None,
        )
        self._begin(now)
        return episode

    def _begin(self, obs: Tree) -> None:
        self.obs: list[Tree] = []
        self.actions: list[Tree] = []
        self.rewards: list[float] = []
        self.log_probs: list[float] = []
        self.costs: list[float] = []
        self._see(obs)

    def _see(self, obs: Tree) -> None:
        self.obs.append(map_tree(np.copy, obs))  # views are written anew


def stacked(trees: list[Tree]) -> Tree:
    """Trees of arrays as one tree [N, ...]."""

    def join(*parts: NDArray[Any]) -> NDArray[Any]:
        return np.stack(parts)

    return map_tree(join, *trees)
