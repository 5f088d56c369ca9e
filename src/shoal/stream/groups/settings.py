"""What an algorithm says of its groups: a base of its settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from shoal.learn.corrections import Correction
from shoal.llm.sampler.protocol import Sampling
from shoal.math.rates import Schedule, check_schedules
from shoal.types import check_finite, check_positive, check_ranges


@dataclass(frozen=True, slots=True)
class Curriculum:
    """In what order the prompts of a task with levels are asked."""

    by: Literal["task", "success"] = "task"
    """The task's own order, or its easiest level first and the next one where answers to it earn enough."""
    raise_at: float = 0.7
    """Mean reward of a level at which the next one is asked; more stays longer with what is easy."""
    window: int = 64
    """Prompts of a level whose mean reward that is."""
    review: float = 0.2
    """Share of prompts that are of the levels below, the one with the least reward first; 0 may forget them."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(self, raise_at=(-1e9, 1e9), window=(1, 2**20), review=(0, 0.9))


@dataclass(frozen=True, slots=True)
class DrawsGroups:
    """A batch is num_prompts groups of num_generations answers."""

    num_prompts: int = 8
    """Prompts of a batch; more make the gradient less noisy."""
    num_generations: int = 8
    """Answers to each prompt; more make it likelier that some are better than others."""
    max_completion_length: int = 32
    """Tokens of an answer at most; what is longer is cut."""
    sampling: Sampling = field(default_factory=Sampling)
    """How tokens are drawn; log-probabilities are those of what could be drawn."""
    dynamic_sampling: bool = False
    """Replace groups whose answers all earn the same by others."""
    curriculum: Curriculum = field(default_factory=Curriculum)
    """Which prompts of a task with levels are asked."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(
            self,
            num_prompts=(1, 2**16),
            num_generations=(2, 2**15),
            max_completion_length=(1, 2**20),
        )


@dataclass(frozen=True, slots=True)
class LearnsGroups(DrawsGroups):
    """And how large the steps are by which a language model learns from them."""

    learning_rate: float = 1e-4
    """Step size of Adam; larger learns faster and forgets the language sooner."""
    learning_rate_schedule: Schedule = "constant"
    """Its factor over the run: constant, linear to 0, cosine, or a function of the share that is done."""
    correction: Correction = field(default_factory=Correction)
    """What tokens that older weights chose count."""
    max_grad_norm: float = 1.0
    """The gradient's norm is cut to this."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        super(LearnsGroups, self).__post_init__()
        check_positive(self, "learning_rate", "max_grad_norm")
        check_finite(self, "learning_rate")
        check_schedules(self)
