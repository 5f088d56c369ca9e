"""Settings of a replay memory and of how batches are drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from shoal.types import ConfigError, check_ranges


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay memory, and how batches are drawn from it."""

    buffer_size: int = 100_000
    """Steps that the memory holds; more are more varied and older."""
    learning_starts: int = 1_000
    """Steps that are collected before the first update; two of each environment are at least."""
    samples_per_insert: float = 8.0
    """Transitions learned from for each step collected: batch_size x updates / steps; more reuse them better."""
    alpha: float = 0.0
    """Prioritized replay: exponent of the priorities, by the error of each transition; 0: uniform; 0.6 is usual."""
    beta: float = 0.4
    """Prioritized replay: exponent of the importance weights, which grows to 1 by the end of training."""
    recency: float = 1.0
    """Newer steps are drawn more often: a step's age is at most x of the oldest's with probability x^(1/recency)."""
    hindsight: float = 0.0
    """Share of a batch whose goal becomes one that was reached later in the episode; for goal environments, 0.8."""
    file: bool = False
    """Keep the memory in a file of the run directory, to which checkpoints refer instead of copying it."""
    inserted_size: int = 0
    """Steps from outside, inserted by `run.memory.insert`, that are kept beside the run's own; data_fraction of each
    batch is drawn from them. 0: none can be inserted."""
    shards: bool = False
    """Keep each actor's steps in a memory of its own process: batches travel, not steps."""

    def __post_init__(self) -> None:
        """Refuses what cannot be learned from."""
        check_ranges(self, buffer_size=(1, inf), learning_starts=(0, inf))
        check_ranges(self, samples_per_insert=(1e-9, inf), alpha=(0, 1), beta=(0, 1))
        check_ranges(self, hindsight=(0, 1), recency=(1, 100), inserted_size=(0, inf))
        if self.alpha and self.recency != 1:
            raise ConfigError(
                f"recency={self.recency:g} does not apply where alpha={self.alpha:g} draws by priorities; "
                "leave one of them at its default"
            )
        if self.learning_starts > self.buffer_size:
            raise ConfigError(
                f"learning_starts={self.learning_starts:,} steps do not fit into buffer_size={self.buffer_size:,}; "
                "make the first smaller or the second larger"
            )


@dataclass(frozen=True, slots=True)
class FromData:
    """What a run learns from outside besides its own steps."""

    folder: str | None = None
    """The data set; None: nothing."""
    fraction: float = 0.5
    """The share of each batch that is drawn from it, and from what is inserted while the run goes on."""
    updates: int = 0
    """Batches of it alone before the first environment step."""

    def __post_init__(self) -> None:
        """Refuses a share that cannot be."""
        if not 0 <= self.fraction < 1:
            raise ConfigError(
                f"data_fraction must be at least 0 and below 1, got {self.fraction}; to learn from data alone, set "
                "offline_updates, and total_timesteps to 0"
            )


def for_each_step() -> Replay:
    """A large memory, and a batch of 256 learned from for every step."""
    return Replay(buffer_size=1_000_000, samples_per_insert=256)
