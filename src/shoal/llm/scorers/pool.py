"""ScorerPool: judges answers and hands over what each has earned."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from shoal.llm.tasks.task import Prompt


@dataclass(frozen=True, slots=True)
class Scored:
    """What an answer has earned."""

    key: Any
    reward: float | None
    """None where it will never be known."""
    seconds: float
    failure: str | None = None


class ScorerPool:
    """Judges in this process."""

    def __init__(
        self,
        make_scorer: Callable[[], Callable[[Prompt, str], float]],
        *,
        workers: int = 0,
        timeout_s: float = 30.0,
        retries: int = 2,
        on_failure: Literal["raise", "zero", "drop"] = "raise",
    ) -> None:
        """`make_scorer` makes what judges."""
        if workers:
            raise ConfigError(f"scorer_workers={workers}: only 0 is there yet")
        self._scorer, self._retries = make_scorer(), retries
        self._on_failure = on_failure
        self._scored: list[Scored] = []

    @property
    def pending(self) -> int:
        """Answers that were submitted and not handed over."""
        return len(self._scored)

    def submit(self, key: Hashable, prompt: Prompt, answer: str) -> None:
        """Takes an answer in."""
        begun = time.perf_counter()
        reward = float(self._scorer(prompt, answer))
        if not math.isfinite(reward):
            raise ConfigError(
                f"the scorer gave {reward} for an answer to prompt {prompt.index}; a reward is a finite number"
            )
        self._scored.append(Scored(key, reward, time.perf_counter() - begun))

    def poll(self, block_s: float = 0.0) -> list[Scored]:
        """What is judged."""
        scored, self._scored = self._scored, []
        return scored

    def close(self) -> None:
        """Nothing to end."""
