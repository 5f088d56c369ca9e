"""Data sets: recorded episodes as steps for a replay memory, checked against the environment that is learned in."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.memory.data_file import DataFile
from shoal.memory.given import as_dtype, check_actions
from shoal.memory.log_checks import check_numbers
from shoal.memory.replay import ReplayMemory
from shoal.memory.replay_steps import StepArrays
from shoal.memory.slab import kept_actions
from shoal.types import ConfigError, leaf_spaces
from shoal.types.space_text import difference, read_space

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from shoal.memory.data_file import Episode
    from shoal.memory.log_checks import Expected
    from shoal.types import Layout, Spec, Tree


@dataclass(frozen=True, slots=True)
class Data:
    """A data set that was read: its steps, as the memory of a policy keeps them, and the hash of its files."""

    folder: Path
    sha256: str
    episodes: int
    steps: StepArrays

    def memory(self, spec: Spec, *, least: int = 1, num_rows: int = 1) -> ReplayMemory:
        """A replay memory whose first row holds all of it; each row has room for at least `least` records."""
        frames = spec.frame_stack
        needed = len(self.steps.reward) + (self.episodes + 1) * frames
        while True:
            memory = ReplayMemory(
                spec, num_rows, capacity=num_rows * max(needed, least)
            )
            memory.insert_steps(self.steps)
            # Stacks that do not go on from one another take more records, which is known when they are there.
            needed = int(memory.heads[0, 0]) + frames
            if needed <= memory.slots + frames:
                return memory


def read_data(
    folder: Path,
    spec: Spec,
    from_env: Callable[[Tree], Tree],
    *,
    reward_scale: float = 1.0,
    expected: Expected | None = None,
) -> Data:
    """A data set of the environment of `spec`.

    Args:
        folder: one that `shoal record` or Minari wrote.
        spec: what rows observe and do.
        from_env: actions [T, ...] of the environment as the policy keeps them.
        reward_scale: which rewards are multiplied by.
        expected: what its metadata must say of rates and units, where its observations must be within their space too.

    Raises:
        ConfigError: there is none, it is damaged or cut off, of other spaces, units or rates, or holds what no step
            can.
    """
    file, checked = read_episodes(folder, spec)
    if expected is not None:
        check_numbers(file, checked, spec, expected)
    steps = _joined(checked, spec, from_env, reward_scale)
    return Data(folder, file.sha256(), len(checked), steps)


def read_episodes(folder: Path, spec: Spec) -> tuple[DataFile, list[CheckedEpisode]]:
    """A data set of the environment of `spec`, and its episodes as they were recorded.

    Raises:
        ConfigError: there is none, it is damaged or cut off, of other spaces, or holds what no step can.
    """
    if spec.masked or spec.num_agents > 1:
        why = "action masks" if spec.masked else "several agents"
        raise ConfigError(
            f"{spec.env_id} has {why}, which data sets do not hold; leave data out"
        )
    file = DataFile.find(folder)
    _check_spaces(file, spec)
    episodes = file.episodes(spec)
    if not episodes:
        raise ConfigError(f"{folder} holds no episode")
    return file, [
        CheckedEpisode(f"{folder}, episode {number}", episode, spec)
        for number, episode in enumerate(episodes)
    ]


class CheckedEpisode:
    """An episode whose arrays have the dtypes and lengths of a spec, and hold what its spaces allow."""

    def __init__(self, name: str, episode: Episode, spec: Spec) -> None:
        self.name, self.length = name, len(episode.rewards)
        if not self.length:
            raise ConfigError(f"{name} has no step")
        self.reward = self._numbers("rewards", episode.rewards, np.dtype(np.float64))
        self.obs = self._leaves(
            "observations", spec.observation, episode.observations, self.length + 1
        )
        self.action = self._leaves("actions", spec.action, episode.actions, self.length)
        parts = [part for _, part in leaf_spaces(spec.action_space)]
        for part, values in zip(parts, self.action, strict=True):
            check_actions(self.name, part, values)
        flags = [
            np.asarray(values) for values in (episode.terminations, episode.truncations)
        ]
        if any(len(values) != self.length or values.ndim != 1 for values in flags):
            raise ConfigError(
                f"{name} has {self.length} rewards, and other numbers of terminations or truncations"
            )
        self.terminated, self.truncated = (flag.astype(np.bool_) for flag in flags)
        early = (self.terminated | self.truncated)[:-1]
        if early.any():
            raise ConfigError(
                f"{name} ends in step {int(early.argmax())}, before its last one, {self.length - 1}"
            )
        self.behavior_log_prob = episode.behavior_log_prob
        self.cost = episode.costs
        """As it was written: it is looked at where somebody asks for costs."""
        if self.behavior_log_prob is not None:
            told = self._numbers(
                "behavior_log_prob", self.behavior_log_prob, np.dtype(np.float64)
            )
            if told.shape != (self.length,):
                raise ConfigError(
                    f"{name} has {self.length} rewards, and behavior_log_prob of shape {list(told.shape)}"
                )
        # What was recorded no further goes on from its last observation, as after a time limit.
        self.truncated[-1] |= not self.terminated[-1]

    def with_costs(self) -> CheckedEpisode:
        """The same with costs in the place of rewards; ConfigError where the data set does not say them."""
        if self.cost is None:
            raise ConfigError(
                f"{self.name} does not say what its steps cost; write them into its infos as `cost`, as `shoal record` "
                "does and Episode(costs=...)"
            )
        cost = self._numbers("cost", self.cost, np.dtype(np.float64))
        if len(cost) == self.length + 1:
            cost = cost[1:]  # Minari's infos begin with that of the reset
        if cost.shape != (self.length,):
            raise ConfigError(
                f"{self.name} has {self.length} rewards, and costs of shape {list(cost.shape)}"
            )
        made = copy(self)
        made.reward = cost
        return made

    def _leaves(
        self, what: str, layout: Layout, tree: Tree, count: int
    ) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = []
        for leaf, values in zip(layout.leaves, layout.flat(tree), strict=True):
            name = what + leaf.name
            if values.shape != (count, *leaf.shape):
                raise ConfigError(
                    f"{self.name}: {name} must be an array {[count, *leaf.shape]}, as there are {self.length} "
                    f"rewards, got {list(values.shape)} of {values.dtype}{self._jpeg(leaf.dtype, values)}"
                )
            found.append(self._numbers(name, values, leaf.dtype))
        return found

    def _numbers(
        self, name: str, values: NDArray[Any], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """The same in another dtype that holds them all."""
        return as_dtype(self.name, name, values, dtype)

    @staticmethod
    def _jpeg(dtype: np.dtype[Any], values: NDArray[Any]) -> str:
        """A hint where images are coded."""
        coded = dtype == np.uint8 and (values.ndim == 2 or values.dtype.kind in "OS")
        return ": JPEGs; write them with jpeg_encoding=False" if coded else ""


def _check_spaces(file: DataFile, spec: Spec) -> None:
    """ConfigError where the data set's spaces, which old ones do not name, are not the environment's."""
    for name, ours in (
        ("observation_space", spec.observation_space),
        ("action_space", spec.action_space),
    ):
        text = file.metadata.get(name)
        if text is None:
            continue
        theirs = read_space(text)
        differs = difference(ours, theirs, bounds=name == "action_space")
        if differs:
            raise ConfigError(
                f"{file.folder} is not of {spec.env_id}: its {name.replace('_', ' ')} has {differs}; "
                "name a data set of this environment, with its preprocessing"
            )


def _joined(
    episodes: Sequence[CheckedEpisode],
    spec: Spec,
    from_env: Callable[[Tree], Tree],
    reward_scale: float,
) -> StepArrays:
    """One episode behind the other, as the steps [T, 1] of one row."""

    def leaves(parts: list[list[NDArray[Any]]]) -> list[NDArray[Any]]:
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    seen = leaves([[leaf[:-1] for leaf in episode.obs] for episode in episodes])
    final = leaves([[leaf[-1:] for leaf in episode.obs] for episode in episodes])
    done = leaves([episode.action for episode in episodes])
    kept = kept_actions(spec.action)
    actions = kept.flat(from_env(spec.action.tree(done)))
    own = [
        np.asarray(values, leaf.dtype)[:, None]
        for leaf, values in zip(kept.leaves, actions, strict=True)
    ]
    start = np.zeros(sum(episode.length for episode in episodes), np.bool_)
    lengths = [episode.length for episode in episodes]
    start[np.cumsum([0, *lengths[:-1]])] = True

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(one, name) for one in episodes])[:, None]

    return StepArrays(
        obs=spec.observation.tree([leaf[:, None] for leaf in seen]),
        action=kept.tree(own),
        reward=column("reward") * reward_scale,
        terminated=column("terminated"),
        truncated=column("truncated"),
        final_obs=spec.observation.tree(final),
        start=start[:, None],
    )
