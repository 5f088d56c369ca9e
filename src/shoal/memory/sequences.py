"""A reader of a replay memory that hands out sequences: records of one row in order, with the recurrent state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.memory.hindsight import HEAD_WORDS, NO_STEP
from shoal.memory.record_words import RecordWords
from shoal.memory.sequence_priorities import SequencePriorities, Starts
from shoal.types import ConfigError, check_least, check_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.memory.reader import Prioritized
    from shoal.memory.replay import ReplayMemory
    from shoal.types import Sequences

MOST_TRIES = 200


class SequenceReader:
    """Samples sequences of `length` records, every step that so many records begin with as likely, or by priorities.

    An episode's last observation is a record of its own, so that a truncated episode bootstraps from it.
    """

    def __init__(
        self,
        memory: ReplayMemory,
        *,
        batch_size: int,
        length: int,
        gamma: float = 0.99,
        seed: int = 0,
        rows: slice | None = None,
        prioritized: Prioritized | None = None,
        stride: int = 1,
    ) -> None:
        """A reader that begins with the random numbers of `seed`.

        Args:
            memory: which it reads; its records hold recurrent states.
            batch_size: sequences of a sample, B.
            length: records of a sequence, L.
            gamma: the discount of one step.
            seed: of what is drawn.
            rows: whose records are drawn; None: those of all.
            prioritized: sequences are drawn by priorities of this reader's own.
            stride: then they begin with every so many records of a row; uniformly drawn ones with any.

        Raises:
            ConfigError: the memory holds no states, stacks of frames, or too few records.
        """
        self.memory, self.batch_size, self.length = memory, batch_size, length
        self.gamma, self.rows = gamma, rows or slice(0, memory.num_rows)
        self.stride = stride
        check_least(self, batch_size=1, length=2, stride=1)
        check_ranges(self, gamma=(0, 1))
        _check_memory(memory, length)
        self.overwritten = 0
        """How many times a sequence was drawn again because a writer was faster."""
        self._rng = np.random.Generator(np.random.PCG64([seed % 2**64, 3]))
        self._priorities: SequencePriorities | None = None
        if prioritized is not None:
            self._priorities = SequencePriorities(
                memory, self.rows, length=length, stride=stride, how=prioritized
            )
        self.stale_keys = 0
        """Keys given to `prioritize` whose records had been overwritten."""
        self._records = RecordWords(memory.form)
        self._ahead = np.arange(length)[:, None]

    def sample(self, *, beta: float | None = None) -> Sequences:
        """The next batch.

        Args:
            beta: how far the weights take back what priorities distort, instead of `prioritized.beta`.

        Raises:
            RuntimeError: no row holds so many records yet, or writers overwrite them faster than they are read.
        """
        batch = self.batch_size
        words = np.empty((self.length, batch, self.memory.ring.shape[2]), np.uint64)
        key, share = np.empty(batch, np.int64), np.ones(batch)
        missing = np.arange(batch)
        if self._priorities is not None:
            self._priorities.look()
        for _ in range(MOST_TRIES):
            row, first, shares = self._draw(len(missing))
            found, good, steps = self._read(row + self.rows.start, first)
            if self._priorities is not None:
                self._priorities.forget(row[~steps], first[~steps])
            at = missing[good]
            words[:, at], share[at] = found[:, good], shares[good]
            own = row[good] + self.rows.start
            key[at] = own + self.memory.num_rows * first[good]
            missing = missing[~good]
            if not len(missing):
                return self._records.sequences(
                    words, key, self._weight(share, beta), gamma=self.gamma
                )
        raise RuntimeError(
            "nothing can be sampled: writers overwrite all records while they are read; set the memory's capacity to "
            "more"
        )

    def prioritize(
        self, keys: NDArray[np.int64], errors: torch.Tensor | NDArray[np.float32]
    ) -> None:
        """Makes errors + epsilon the priorities of sequences that were sampled.

        Args:
            keys: of sequences, [n].
            errors: one number of each, [n], such as `math.q_learning.mixed_error` makes it.

        Raises:
            ValueError: an error is NaN, infinite or negative; nothing is changed.
            ConfigError: the reader has no priorities.
        """
        if self._priorities is None:
            raise ConfigError(
                "this reader draws uniformly; make it with prioritized=Prioritized(...)"
            )
        if isinstance(errors, torch.Tensor):
            errors = errors.detach().cpu().numpy()
        self.stale_keys += self._priorities.update(keys, errors)

    def set_horizon(self, *, n_step: int, gamma: float) -> None:
        """Discounts by another gamma from the next batch on; how many steps a target sums is the algorithm's."""
        self.gamma = gamma

    def state(self) -> dict[str, Any]:
        """What it goes on from, beside the memory: the random numbers, and the priorities where it has some."""
        saved: dict[str, Any] = {"random": dict(self._rng.bit_generator.state)}
        if self._priorities is not None:
            saved["priorities"] = self._priorities.state() | {"stale": self.stale_keys}
        return saved

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`, when its memory was restored; ConfigError where it is damaged."""
        try:
            if self._priorities is not None:
                self._priorities.restore(state["priorities"])
                self.stale_keys = int(state["priorities"]["stale"])
            self._rng.bit_generator.state = state["random"]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the saved state of a reader of sequences does not fit this one: {error!r}"
            ) from error

    def _weight(self, share: NDArray[np.float64], beta: float | None) -> torch.Tensor:
        """(N P(i))^-beta, divided by the greatest; 1 without priorities."""
        if self._priorities is None:
            return torch.ones(len(share))
        weight = share ** -(self._priorities.how.beta if beta is None else beta)
        return torch.from_numpy((weight / weight.max()).astype(np.float32))

    def _draw(self, count: int) -> Starts:
        """So many sequences that were whole when the rings were looked at."""
        memory = self.memory
        if self._priorities is not None:
            drawn = self._priorities.draw(self._rng, count)
            if drawn is None:
                raise RuntimeError(_why_not(memory, self.rows, self.length))
            return drawn
        heads = memory.heads[self.rows, 0].astype(np.int64)
        held = np.minimum(heads, memory.slots)
        starts = np.maximum(held - self.length + 1, 0)
        ends = starts.cumsum()
        if not ends[-1]:
            raise RuntimeError(_why_not(memory, self.rows, self.length))
        at = self._rng.integers(ends[-1], size=count)
        row = np.searchsorted(ends, at, side="right")
        first = (heads - held)[row] + at - (ends - starts)[row]
        return Starts(row, first, np.ones(count))

    def _read(
        self, row: NDArray[np.int64], first: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_], NDArray[np.bool_]]:
        """The words [L, n, ...] of sequences, which are of those records and begin with a step, and which begin so."""
        ring, index = self.memory.ring, first + self._ahead
        slot = index % self.memory.slots
        wanted = (2 * index + 2).astype(np.uint64)
        before = ring[row, slot, 0] == wanted
        words = ring[row, slot]
        # A writer changes a record's sequence number before its words: if it is as it was, so were they.
        whole = (before & (ring[row, slot, 0] == wanted)).all(0)
        self.overwritten += int((~whole).sum())
        steps = words[0, :, HEAD_WORDS - 1] & NO_STEP == 0
        return words, whole & steps, steps | ~whole


def _why_not(memory: ReplayMemory, rows: slice, length: int) -> str:
    most = min(int(memory.heads[rows, 0].max()), memory.slots)
    return (
        f"nothing can be sampled yet: the rows hold up to {most} records each, and a sequence has {length}; collect "
        "more before learning (replay.learning_starts)"
    )


def _check_memory(memory: ReplayMemory, length: int) -> None:
    if not memory.form.state.leaves:
        raise ConfigError(
            "sequences begin with the recurrent state that the actor had, and this memory keeps none; make it with "
            "state=, the layout of the policy's"
        )
    if memory.form.frames > 1:
        raise ConfigError(
            f"sequences are not put together from stacks of frames (here of {memory.form.frames}); a network with a "
            "memory sees the frames one by one: set preprocessing.frame_stack to 1"
        )
    if memory.slots < 2 * length:
        raise ConfigError(
            f"sequences of {length} records need room for {2 * length} in each row, and the memory has it for "
            f"{memory.slots}; set its capacity (replay.buffer_size) to at least {2 * length * memory.num_rows}, or "
            "draw shorter ones"
        )
