"""The stream `replay`: transitions drawn from a memory of past experience, for off-policy algorithms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shoal.memory.reader import Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.types import ConfigError, Episodes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike

    from shoal.memory.hindsight import Hindsight
    from shoal.memory.settings import Replay
    from shoal.stream.data import DataDraws
    from shoal.stream.rollouts import Rollouts
    from shoal.types import Transitions


class DrawsBatches(Protocol):
    """Settings of an algorithm: how its rows step and what it draws."""

    @property
    def num_steps(self) -> int:
        """Steps of every row between two times of learning."""
        ...

    @property
    def batch_size(self) -> int:
        """Transitions of a batch."""
        ...

    @property
    def n_step(self) -> int:
        """Rewards of a transition, at most."""
        ...

    @property
    def gamma(self) -> float:
        """Their discount."""
        ...


class ReplayStream:
    """Batches from a replay memory, which short rollouts fill in between.

    For every step that is inserted after `learning_starts`, `samples_per_insert` transitions are drawn, whatever the
    schedule: batches come until as many were, then the rows act and step `num_steps` times. Steps count as
    `env_steps` when what they allow is drawn, so that a run ends with all of its updates.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        settings: Replay,
        *,
        cfg: DrawsBatches,
        total_timesteps: int,
        file: Path | None = None,
        data: DataDraws | None = None,
    ) -> None:
        """A memory for the rows of `rollouts`, which nobody else may pull; in `file`, where one is given.

        `data` is what is drawn besides, or before the first step.

        Raises:
            ConfigError: a setting that cannot work, with one that would.
        """
        num_rows = rollouts.env.num_rows
        offline = data is not None and data.updates
        if total_timesteps <= settings.learning_starts and not offline:
            raise ConfigError(
                f"nothing would be learned: total_timesteps={total_timesteps:,} are over before "
                f"learning_starts={settings.learning_starts:,}"
            )
        self.settings, self.batch_size = settings, cfg.batch_size
        self.memory = ReplayMemory(
            rollouts.env.spec, num_rows, capacity=settings.buffer_size, file=file
        )
        self.data = data
        self.hindsight: Hindsight | None = None
        """What changes the goals of batches, where they have some."""
        self.reader = Reader(
            self.memory,
            batch_size=cfg.batch_size if data is None else len(data.own.key),
            n_step=cfg.n_step,
            gamma=cfg.gamma,
            seed=rollouts.acting.seed,
            prioritized=Prioritized(settings.alpha) if settings.alpha else None,
            into=None if data is None else data.own,
        )
        self.env_steps = self.version = 0
        self.episodes = Episodes(np.zeros(0), np.zeros(0, np.int64), {})
        self._rollouts = rollouts
        self._total = max(total_timesteps, 1)
        self._left_over = file is not None
        """What the file holds is of a run that came to no checkpoint."""
        self._inserted, self._credit = 0, 0.0
        """Transitions that may be drawn before rows must step again."""

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and rows that are collected at a time."""
        return self._rollouts.shape

    @property
    def steps_per_batch(self) -> float:
        """Environment steps for each batch."""
        return self.batch_size / self.settings.samples_per_insert

    def __iter__(self) -> ReplayStream:
        """Itself."""
        return self

    def __next__(self) -> Transitions:
        """The next batch, after as many steps as it needs; its arrays are those of every batch."""
        found: list[Episodes] = []
        if self._left_over:
            self.memory.clear()
            self._left_over = False
        if self.data is not None and self.data.alone:
            self.episodes = joined(found, tuple(self.episodes.info))
            return self.data.draw(self.reader, self._beta())
        while self._credit < self.batch_size:
            next(self._rollouts)
            self._insert()
            found.append(self._rollouts.episodes)
            if self._credit < self.batch_size:
                self.publish()
        self.episodes = joined(found, tuple(self.episodes.info))
        self._credit -= self.batch_size
        if self._credit < self.batch_size:
            self.env_steps = self._rollouts.env_steps
        if self.data is not None:
            batch = self.data.draw(self.reader, self._beta())
        else:
            batch = self.reader.sample(beta=self._beta())
        if self.hindsight is not None:
            self.hindsight.relabel(self.reader.batch)
        return batch

    def explore(self, epsilon: ArrayLike) -> None:
        """How often each row takes any action instead of the best, from its next step on: a number, or [rows]."""
        self._rollouts.roles[0].explore(epsilon)

    def prioritize(self, batch: Transitions) -> None:
        """Gives the batch's transitions priorities by its errors; nothing where they are drawn uniformly."""
        if self.settings.alpha and self.data is not None:
            self.data.prioritize(self.reader, batch)
        elif self.settings.alpha:
            self.reader.prioritize(batch.key, batch.error)

    def publish(self) -> int:
        """Makes the weights as they are the next version that acts, and returns its number."""
        self.version = self._rollouts.publish()
        return self.version

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, taken after a publish."""
        more = {"data": self.data, "hindsight": self.hindsight}
        given = {name: part.state() for name, part in more.items() if part is not None}
        return given | {
            "rollouts": self._rollouts.state(),
            "memory": self.memory.state(),
            "reader": self.reader.state(),
            "credit": self._credit,
            "inserted": self._inserted,
            "env_steps": self.env_steps,
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; returns a sentence for each episode that could not be continued."""
        if self.data is not None:
            self.data.restore(state.get("data", {}))
        lost = self._rollouts.restore(state["rollouts"])
        self.memory.restore(state["memory"])
        if self.hindsight is not None:
            self.hindsight.restore(state["hindsight"])
        self._left_over = False
        gone = 0 if self.memory.gone is None else int(self.memory.gone.sum())
        if gone:
            lost.append(
                f"{gone:,} of the {len(self.memory):,} records of {self.memory.file} were overwritten after the "
                "checkpoint; the run goes on without them"
            )
        self.reader.restore(state["reader"])
        self._credit = float(state["credit"])
        self._inserted = int(state["inserted"])
        self.env_steps, self.version = int(state["env_steps"]), self._rollouts.version
        return lost

    def _beta(self) -> float | None:
        """The exponent of the weights by now; None without priorities."""
        if not self.settings.alpha:
            return None
        beta, over = self.settings.beta, min(1.0, self.env_steps / self._total)
        return beta + (1 - beta) * over

    def _insert(self) -> None:
        """Moves a rollout's steps into the memory, and counts what may be drawn for them."""
        before = self._inserted
        self._inserted += self.memory.insert(self._rollouts.slabs[0])
        start = self.settings.learning_starts
        counted = max(0, self._inserted - start) - max(0, before - start)
        self._credit += counted * self.settings.samples_per_insert


def joined(parts: list[Episodes], keys: tuple[str, ...]) -> Episodes:
    """Episodes of several rollouts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        none = {key: np.zeros(0) for key in keys}
        return Episodes(np.zeros(0), np.zeros(0, np.int64), none)
    info = {
        key: np.concatenate([part.info[key] for part in parts]) for key in parts[0].info
    }
    returns = np.concatenate([part.returns for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    return Episodes(returns, lengths, info, rows)
