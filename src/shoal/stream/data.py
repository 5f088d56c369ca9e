"""Draws of steps from outside: batches of a data set alone, and a share of every batch beside a run's own steps."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.memory.batches import allocate, part_of
from shoal.memory.outside import Outside
from shoal.memory.reader import Prioritized, Reader
from shoal.types import ConfigError, Episodes

if TYPE_CHECKING:
    from shoal.learn.publishing import Published
    from shoal.memory.data import Data
    from shoal.memory.settings import FromData, Replay
    from shoal.memory.shard_reader import ShardReader
    from shoal.stream.replay import DrawsBatches
    from shoal.types import Spec, Transitions

ALONE, MIXED = 2**61, 2**62
"""What is added to the run's seed for the readers of data, so that none draws as the memory's own."""


class DataDraws:
    """Steps from outside in a memory of their own, which the run's steps do not enter, and its readers.

    A batch's last transitions are of these steps, those before of what the run's rows did: of a data set, of what was
    inserted, or of both, every step as likely. As long as there are none, batches are the rows' own.
    """

    def __init__(
        self,
        data: Data | None,
        spec: Spec,
        how: FromData,
        cfg: DrawsBatches,
        *,
        seed: int,
        replay: Replay,
    ) -> None:
        """Batches as `cfg` says; `replay.alpha` prioritizes here too, and `replay.inserted_size` makes room."""
        self.sha256 = "" if data is None else data.sha256
        self.updates = how.updates
        self.done = 0
        """Batches of the data set alone, so far."""
        least = 2 * cfg.n_step + 2 + 2 * (spec.frame_stack - 1)
        self.outside = Outside(spec, data=data, size=replay.inserted_size, least=least)
        memory = self.outside.memory
        self.batch = allocate(memory, cfg.batch_size)
        self.count = min(round(how.fraction * cfg.batch_size), cfg.batch_size - 1)
        """Transitions from outside in each batch, where there are some."""
        make = partial(
            Reader,
            memory,
            n_step=cfg.n_step,
            gamma=cfg.gamma,
            prioritized=Prioritized(replay.alpha) if replay.alpha else None,
        )
        self._readers: dict[str, Reader] = {}
        if how.updates:
            self._readers["alone"] = make(
                batch_size=cfg.batch_size, seed=seed + ALONE, into=self.batch
            )
        if self.count:
            into = part_of(self.batch, slice(cfg.batch_size - self.count, None))
            self._readers["mixed"] = make(
                batch_size=self.count, seed=seed + MIXED, into=into
            )
        self._drawn_alone, self._own = False, 0
        """Of the last batch: whether it was of the data set alone, and how many transitions were the rows' own."""

    @property
    def alone(self) -> bool:
        """Whether the next batch is of the data set alone."""
        return self.done < self.updates

    def draw(self, own: ShardReader, beta: float | None) -> Transitions:
        """The next batch: of the data set alone, or what `own` draws with the share from outside behind it.

        Returns:
            The part that `own` drew; `batch` is the whole.
        """
        self._drawn_alone = self.alone
        if self.alone:
            self.done, self._own = self.done + 1, 0
            self._readers["alone"].sample(beta=beta)
            return part_of(self.batch, slice(0))
        self._own = len(self.batch.key)
        if self.count and not self.outside.empty:
            self._own -= self.count
            self._readers["mixed"].sample(beta=beta)
        return own.draw(self._own, beta)

    def prioritize(self, own: Reader, batch: Transitions) -> None:
        """Gives each of the last batch's transitions its priority, where it came from."""
        if self._drawn_alone:
            self._readers["alone"].prioritize(batch.key, batch.error)
            return
        first = self._own
        if first < len(batch.key):
            self._readers["mixed"].prioritize(batch.key[first:], batch.error[first:])
        own.prioritize(batch.key[:first], batch.error[:first])

    def state(self) -> dict[str, Any]:
        """All that `restore` needs; the data set itself is read again."""
        readers = {name: reader.state() for name, reader in self._readers.items()}
        return {
            "sha256": self.sha256,
            "done": self.done,
            "readers": readers,
            "inserted": self.outside.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`; ConfigError where the data set is another one by now."""
        check_unchanged(self.sha256, state)
        self.outside.restore(state.get("inserted", {}))
        self.done = int(state["done"])
        for name, reader in self._readers.items():
            reader.restore(state["readers"][name])


class DataStream:
    """Batches of a data set, for algorithms that learn from it alone and take no step."""

    def __init__(
        self, data: Data, spec: Spec, learner: Published, *, batch_size: int, seed: int
    ) -> None:
        """Draws of single steps, every one as likely."""
        memory = data.memory(spec, least=4 + 2 * (spec.frame_stack - 1))
        self._reader = Reader(memory, batch_size=batch_size, seed=seed + ALONE)
        self._learner, self._sha256 = learner, data.sha256
        self.env_steps = self.version = 0
        self.episodes = Episodes(np.zeros(0), np.zeros(0, np.int64), {})

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and rows of a batch."""
        return 1, self._reader.batch_size

    def __iter__(self) -> DataStream:
        """Itself."""
        return self

    def __next__(self) -> Transitions:
        """The next batch, in the arrays of every one."""
        return self._reader.sample()

    def publish(self) -> int:
        """Makes the weights as they are the next version, and returns its number."""
        self.version = self._learner.publish()
        return self.version

    def state(self) -> dict[str, Any]:
        """All that `restore` needs; the data set itself is read again."""
        return {
            "sha256": self._sha256,
            "reader": self._reader.state(),
            "version": self.version,
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; ConfigError where the data set is another one by now."""
        check_unchanged(self._sha256, state)
        self._reader.restore(state["reader"])
        self.version = int(state["version"])
        return []


def check_unchanged(sha256: str, state: dict[str, Any]) -> None:
    """ConfigError where a checkpoint's data set had another hash."""
    if state.get("sha256") != sha256:
        raise ConfigError(
            "the data set was changed since the checkpoint (its sha256 is another): put the one back that the run "
            "was trained with, or train a new run"
        )
