"""Trial: one environment that is being checked, and what is known of it so far."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shoal.check.counted import Counter
from shoal.check.play import Played, Player
from shoal.check.report import Findings
from shoal.envs.agents.rows import AgentsEnv
from shoal.envs.python_env import make_envs
from shoal.envs.serial import make
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    import gymnasium as gym

    from shoal.check.repeat import Rows
    from shoal.check.report import Speed
    from shoal.envs.libraries.batched import BatchedEnv
    from shoal.envs.serial import SerialEnv
    from shoal.envs.vec_env import VecEnv

REPEAT_S = 4.0
MAX_REPEATED = 500
RUNS_OF_REPEATS = 16
"""So many times the repeated steps are made, over all instances and rows."""


@dataclass(slots=True)
class Trial:
    """One environment that is being checked: what makes it, two instances of it, and what was found."""

    name: str
    factory: Callable[[], gym.Env[Any, Any]]
    steps: int
    """Random steps of the longest check."""
    seed: int
    found: Findings = field(default_factory=Findings)
    envs: list[gym.Env[Any, Any]] = field(default_factory=list["gym.Env[Any, Any]"])
    players: list[Player] = field(default_factory=list[Player])
    played: Played = field(default_factory=Played)
    blocked: bool = False
    """Nothing more can be checked."""
    skipped: list[str] = field(default_factory=list[str])
    """Checks that could not be made."""
    speed: Speed | None = None
    startup_s: float = 0.0
    counter: Counter = field(default_factory=Counter)
    """Calls of environments inside rows."""
    beats: int = 0
    """Steps of rows that are shared from the start."""
    rows: list[Rows] = field(default_factory=list["Rows"])
    """Games or vector environments that are being checked, in place of `envs`."""
    vector: Callable[[int], BatchedEnv] | None = None
    """Makes rows of a vector environment, where one is checked."""
    is_game: bool = False
    """Whether the environments have several agents."""

    @property
    def repeated(self) -> int:
        """Steps that are repeated: as many as the time allows, at the speed seen before."""
        per_s = self.played.steps / max(self.played.seconds, 1e-6)
        affordable = int(per_s * REPEAT_S / RUNS_OF_REPEATS)
        return max(10, min(MAX_REPEATED, self.steps, affordable))

    def calls(self) -> int:
        """Calls of the environment so far: it hangs while they do not grow."""
        alone = sum(player.calls for player in self.players)
        return alone + self.counter.calls + self.beats

    def make_rows(self, number: int) -> SerialEnv | None:
        """Rows of the backend `serial`; None where it cannot hold the spaces, of which was warned before."""
        try:
            factory = self.counter.counting(self.factory)
            return make(factory, number, name=self.name)
        except ConfigError:
            if not self.found.has("spaces"):
                raise
            if "rows" not in self.skipped:
                self.skipped.append("rows")
            return None

    def make_shared(self, number: int) -> AgentsEnv | BatchedEnv:
        """Rows of `number` games, or of a vector environment."""
        if self.vector is not None:
            return self.vector(number)
        factory = self.counter.counting(self.factory)
        envs: list[Any] = make_envs(factory, number, name=self.name)
        return AgentsEnv(envs, self.name)


def close_rows(rows: VecEnv) -> None:
    """Closes rows; what an environment's close raises is found where it is called by itself."""
    with contextlib.suppress(Exception):
        rows.close()
