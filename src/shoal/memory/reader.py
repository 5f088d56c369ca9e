"""A reader of a replay memory: batches of transitions, with settings of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal import _native
from shoal.memory.batches import allocate, attach
from shoal.types import (
    ConfigError,
    Transitions,
    check_least,
    check_ranges,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.memory.batches import HasForm
    from shoal.memory.replay import ReplayMemory

MOST_BATCH = 2**24
MOST_POWER = 4
TOO_FAST = (
    "no step that the memory holds has the step after it, or writers overwrite all of them while they are read; set "
    "its capacity to more"
)


@dataclass(frozen=True, slots=True)
class Prioritized:
    """Steps are drawn with P(i) = p_i^alpha / sum_j p_j^alpha (Schaul et al. 2016); p = |error| + epsilon.

    A step that is new has the greatest priority so far, 1 at first. The weight of a
    transition is (N P(i))^-beta, divided by the greatest of its batch; N steps can be
    sampled.
    """

    alpha: float = 0.6
    """How much priorities matter; 0: not at all."""
    beta: float = 0.4
    """How far the weights take back what priorities distort; 1: wholly."""
    epsilon: float = 1e-6
    """What is added to each error, so that no step is never drawn."""
    uniform_mix: float = 0.0
    """The share of steps that is drawn uniformly."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        powers = (0, MOST_POWER)
        check_ranges(self, alpha=powers, beta=powers)
        check_ranges(self, epsilon=(1e-12, 1e6), uniform_mix=(0, 1))


@dataclass(frozen=True, slots=True)
class Mixing:
    """Which steps are drawn more often than others."""

    ends: tuple[int, ...] = ()
    """Blocks of rows, each by the row before which it ends; none: all rows are one."""
    shares: tuple[float, ...] = ()
    """The share of a batch that is drawn from each block; that of one without steps goes to the others."""
    recency: float = 1.0
    """k, where P(age <= x) = x^(1/k) of the ages of a row's steps, 0 to 1; 1: all ages are as likely."""


class Reader:
    """Samples transitions of at most `n_step` steps from a memory, every step that can begin one as likely.

    A memory may have any number of readers, in any process; each is used by one thread
    at a time.
    """

    checked = True
    """False only to show in a test what the checks of records keep out."""

    def __init__(
        self,
        memory: ReplayMemory,
        *,
        batch_size: int,
        n_step: int = 1,
        gamma: float = 0.99,
        seed: int = 0,
        prioritized: Prioritized | None = None,
        mixing: Mixing | None = None,
        into: Transitions | None = None,
    ) -> None:
        """A reader that begins with the random numbers of `seed`.

        Args:
            memory: which it reads.
            batch_size: transitions of a sample.
            n_step: steps of a transition, at most.
            gamma: the discount of one step.
            seed: of what is drawn.
            prioritized: steps are drawn by priorities of this reader's own.
            mixing: which steps are drawn more often; None: each as often.
            into: where batches are written, such as a part of larger ones; None: arrays of the reader's own.

        Raises:
            ConfigError: a setting does not fit the memory.
        """
        self.memory = memory
        self.batch_size, self.n_step, self.gamma = batch_size, n_step, gamma
        check_least(self, batch_size=1, n_step=1, gamma=0)
        check_fits(memory, batch_size=batch_size, n_step=n_step, gamma=gamma)
        self.prioritized, self._mixing = prioritized, mixing or Mixing()
        if prioritized is not None and self._mixing.recency != 1:
            raise ConfigError(
                f"recency={self._mixing.recency:g} is of steps that are drawn without priorities; leave it at 1"
            )
        self.stale_keys = 0
        """Keys given to `prioritize` whose records had been overwritten."""
        self._batch = allocate(memory, batch_size) if into is None else into
        self._native = self._make(seed % 2**64)

    def sample(
        self, *, alpha: float | None = None, beta: float | None = None
    ) -> Transitions:
        """The next batch; its arrays are written anew by the next call.

        Args:
            alpha: for this batch, instead of `prioritized.alpha`; another one than
                before takes a walk over all priorities.
            beta: for this batch, instead of `prioritized.beta`.

        Raises:
            RuntimeError: no step can be sampled yet, or writers overwrite them faster than they are read.
            ConfigError: `alpha` or `beta` where there are no priorities, or out of range.
        """
        if self.prioritized is None:
            if alpha is not None or beta is not None:
                raise ConfigError(
                    "alpha and beta are of priorities; make the reader with prioritized=Prioritized(...)"
                )
            found = self._native.sample()
        else:
            alpha = self.prioritized.alpha if alpha is None else alpha
            beta = self.prioritized.beta if beta is None else beta
            if not (0 <= alpha <= MOST_POWER and 0 <= beta <= MOST_POWER):
                raise ConfigError(
                    f"alpha and beta must be between 0 and {MOST_POWER}, got {alpha} and {beta}"
                )
            found = self._native.sample_prioritized(alpha, beta)
        if not found:
            raise RuntimeError(self._why_not())
        return self._batch

    def prioritize(
        self, keys: NDArray[np.int64], errors: torch.Tensor | NDArray[np.float32]
    ) -> None:
        """Makes |error| + epsilon the priority of each key; of a key that stands twice, the last error counts.

        Keys of records that were overwritten since are left out, and counted in
        `stale_keys`.

        Args:
            keys: of transitions that were sampled, [n].
            errors: theirs, [n].

        Raises:
            ValueError: an error is NaN or infinite, or a key is of nothing that was sampled; nothing is changed.
            ConfigError: the reader has no priorities.
        """
        if self.prioritized is None:
            raise ConfigError(
                "this reader draws uniformly; make it with prioritized=Prioritized(...)"
            )
        if isinstance(errors, torch.Tensor):
            errors = errors.detach().cpu().numpy()
        numbers = np.ascontiguousarray(errors, np.float32)
        self.stale_keys = self._native.prioritize(keys, numbers)

    def set_horizon(self, *, n_step: int, gamma: float) -> None:
        """Sums other rewards, or with another discount, from the next batch on; what is drawn and how stays.

        Raises:
            ConfigError: the memory has no room for so many steps; nothing is changed.
        """
        check_fits(self.memory, batch_size=1, n_step=n_step, gamma=gamma)
        self.n_step, self.gamma, before = n_step, gamma, self._native
        self._native = self._make(0)
        self._native.random = before.random
        if self.prioritized is not None:
            self._native.set_priorities(*before.priorities)

    @property
    def batch(self) -> Transitions:
        """The last one."""
        return self._batch

    @property
    def overwritten(self) -> int:
        """How many times a record was drawn again because a writer was faster."""
        return self._native.overwritten

    def state(self) -> dict[str, Any]:
        """What it goes on from: the random numbers, and the priorities where it has some."""
        state: dict[str, Any] = {"random": np.array(self._native.random, np.uint64)}
        if self.prioritized is not None:
            priority, seen, greatest, stale = self._native.priorities
            state["priority"], state["seen"] = priority, seen
            state["greatest"], state["stale"] = float(greatest), int(stale)
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`, when its memory was restored.

        Raises:
            ConfigError: it is damaged, or of another memory or other settings.
        """
        try:
            if self.prioritized is not None:
                self._native.set_priorities(
                    still_there(self.memory, state["priority"]),
                    state["seen"],
                    state["greatest"],
                    state["stale"],
                )
                self.stale_keys = state["stale"]
            elif "priority" in state:
                raise ValueError("the reader that was saved had priorities")
            self._native.random = state["random"].tolist()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"the saved state of a reader of the replay memory does not fit this one: {error}"
            ) from error

    def _make(self, seed: int) -> _native.ReplayReader:
        """A native reader of the settings as they are, which writes into the batch."""
        try:
            made = _native.ReplayReader(
                self.memory.rings,
                self.batch_size,
                self.n_step,
                self.gamma,
                seed,
                checked=self.checked,
                block_ends=list(self._mixing.ends),
                shares=list(self._mixing.shares),
                recency=self._mixing.recency,
            )
        except ValueError as error:
            raise ConfigError(f"a reader of the replay memory: {error}") from error
        if how := self.prioritized:
            made.prioritize_by(how.alpha, how.epsilon, how.uniform_mix)
        attach(made, self.memory.form, self._batch)
        return made

    def _why_not(self) -> str:
        if len(self.memory) < 2 * self.memory.num_rows:
            return (
                f"nothing can be sampled yet: the memory holds {len(self.memory)} records of "
                f"{self.memory.num_rows} rows, and a transition needs two of one row; collect more before learning"
            )
        return f"nothing can be sampled: {TOO_FAST}"


def check_fits(memory: HasForm, *, batch_size: int, n_step: int, gamma: float) -> None:
    """Refuses a batch, a horizon or a discount that cannot be.

    Raises:
        ConfigError: with what would work.
    """
    if gamma > 1 or batch_size > MOST_BATCH:
        raise ConfigError(
            f"gamma must be at most 1 and batch_size at most {MOST_BATCH:,}, got {gamma} and {batch_size}"
        )
    least = 2 * n_step + 2 + 2 * (memory.form.frames - 1)
    if memory.slots < least:
        raise ConfigError(
            f"n_step={n_step} needs {least} records of each row, and the memory has room for {memory.slots}; "
            f"set its capacity to at least {least * memory.num_rows}"
        )


def still_there(
    memory: ReplayMemory, priority: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Saved priorities without those of records that are gone, or whose stacks are."""
    gone = memory.gone
    if gone is None or priority.size != gone.size:
        return priority
    for _ in range(memory.form.frames - 1):
        gone = gone | np.roll(gone, 1, axis=1)
    return np.where(gone.reshape(-1), np.float32(0), priority)
