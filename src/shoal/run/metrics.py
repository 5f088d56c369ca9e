"""Metrics: sums of what was logged since the last line, and windows over the last episodes."""

from __future__ import annotations

from collections import deque
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.types import Episodes


OWN = ("step", "update", "version", "learner/skipped", "replay/inserted")
"""What every line holds besides: nothing else may have these names, or one that begins as those of `OWN_KINDS`."""
OWN_KINDS = (
    "episode/count",
    "episode/return",
    "episode/length",
    "time/",
    "speed/",
    "guard/",
)


def check_logged(name: str, value: object) -> None:
    """ConfigError unless `value` is one number and its name is none of the run's own."""
    if name in OWN or name.startswith(OWN_KINDS):
        raise ConfigError(
            f"run.log: {name!r} is one of the run's own numbers; choose another name, such as 'my/{name}'"
        )
    if isinstance(value, torch.Tensor):
        single = value.numel() == 1
    else:
        single = isinstance(value, Real | np.bool_)
    if not single:
        raise ConfigError(
            f"run.log: {name!r} must be one number or a tensor of one, got {value!r}"
        )


class Metrics:
    """The numbers of the line under way."""

    def __init__(self, window: int, agents: tuple[str, ...]) -> None:
        """`window`: episodes in the means; `agents`: the names of an environment's agents, if several."""
        self.returns: deque[float] = deque(maxlen=window)
        self.lengths: deque[float] = deque(maxlen=window)
        self.episodes = 0
        self._window, self._agents = window, agents
        self._mean_return = -float("inf")
        self._sums: dict[str, float | torch.Tensor] = {}
        self._counts: dict[str, int] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing was logged since the last line."""
        return not self._counts

    @property
    def mean_return(self) -> float:
        """Mean return over the window; -inf before it is full."""
        full = len(self.returns) == self._window
        return self._mean_return if full else -float("inf")

    def add(self, name: str, value: float | torch.Tensor, count: int = 1) -> None:
        """Adds to the mean of `name`; a tensor is not read before the line is written."""
        if isinstance(value, torch.Tensor):
            value = value.detach()
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._counts[name] = self._counts.get(name, 0) + count

    def note(self, episodes: Episodes) -> None:
        """Takes the episodes of a rollout in."""
        if len(episodes.returns) == 0:
            return
        self._keep(episodes.returns.tolist(), episodes.lengths.tolist())
        for key, values in episodes.info.items():
            for value in values.tolist():
                if value == value:  # what is not known of an episode is no number
                    self.add(f"info/{key}", value)
        if self._agents:
            pairs = zip(episodes.rows.tolist(), episodes.returns.tolist(), strict=True)
            for row, value in pairs:
                agent = self._agents[row % len(self._agents)]
                self.add(f"episode/return/{agent}", value)
        self.episodes += len(episodes.returns)

    def episode_numbers(self) -> dict[str, float]:
        """How many episodes ended, and the means over the window."""
        numbers: dict[str, float] = {"episode/count": self.episodes}
        if self.returns:
            numbers["episode/return"] = self._mean_return
            numbers["episode/return_std"] = float(np.array(self.returns).std())
            numbers["episode/length"] = float(np.array(self.lengths).mean())
        return numbers

    def mean(self, name: str) -> float | None:
        """The mean of what was logged under a name since the last line; None where nothing was."""
        total = self._sums.get(name)
        return None if total is None else float(total) / self._counts[name]

    def take_means(self) -> dict[str, float]:
        """The means of what was logged since the last call, which are forgotten."""
        counts = self._counts
        means = {name: float(x) / counts[name] for name, x in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "episodes": self.episodes,
            "sums": {name: float(value) for name, value in self._sums.items()},
            "counts": dict(self._counts),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`."""
        self._keep(state["returns"], state["lengths"])
        self.episodes = state["episodes"]
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])

    def _keep(self, returns: Sequence[float], lengths: Sequence[float]) -> None:
        """Takes episodes into the windows; their mean return is computed once, however often it is asked for."""
        self.returns.extend(returns)
        self.lengths.extend(lengths)
        if self.returns:
            self._mean_return = float(np.array(self.returns).mean())
