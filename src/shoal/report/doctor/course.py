"""The course of a run: whether its return rose, fell again, or went nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FEW = 20
"""Episodes, with fewer of which nothing can be said of returns."""
SURE = 2.0
"""The same for a mean of greedy episodes, which may be few."""
WINDOW = 100
"""Episodes in the mean return of a line: with fewer in all, it holds the first of them until the end."""
CLEAR = 1.0
"""Standard deviations of the first episodes' returns: what a gain of mean return must exceed to be one."""
FAR = 4.0
"""Standard errors of the mean return of a line: what it must have risen by where returns were scattered at first."""
NEAR = 0.35
"""Of the gain: what the end may lie below the best."""
RISING = 0.12
"""Of the gain: what the last fifth of the steps adds where a run was still learning when it ended."""


@dataclass(frozen=True, slots=True)
class Course:
    """Returns over a run."""

    episodes: int
    first: float
    """Mean return at the beginning."""
    best: float
    """The best mean return of the lines, or the greedy one where that is better."""
    last: float
    """Mean return at the end."""
    spread: float
    """Standard deviation of returns at the beginning."""
    last_spread: float
    """And at the end."""
    recent: float
    """What the last fifth of the steps added to the mean return."""
    threshold: float | None
    greedy: float | None
    lines: int = 0
    """With a mean return; of one alone nothing can be said of how it rose."""
    answers: bool = False
    """Whether returns are rewards of a language model's answers: of 1 and 0 they scatter however much it learns."""

    @property
    def known(self) -> bool:
        """Whether there were episodes enough to judge."""
        return self.episodes >= FEW and np.isfinite(self.first)

    @property
    def solved(self) -> bool:
        """Whether it reached the environment's threshold: greedy where that was played, else in training."""
        if self.threshold is None or not self.known:
            return False
        return (self.last if self.greedy is None else self.greedy) >= self.threshold

    @property
    def gain(self) -> float:
        """What the best mean return lies above the first."""
        return self.best - self.first

    @property
    def learned(self) -> bool:
        """Whether the return rose clearly at all."""
        clear = FAR * self._chance if self.answers else CLEAR * self.spread
        return self.known and self.gain > max(clear, 1e-9)

    @property
    def improved(self) -> bool:
        """Whether its end lies above its beginning by more than chance, be it by less than a clear gain."""
        return self.known and self.last - self.first > 2**0.5 * FAR * self._chance

    @property
    def settled(self) -> bool:
        """Whether scattered returns became alike, at a mean that lies above the first by more than chance would."""
        if not self.known:
            return False
        sure = max(FAR * self._chance, 2 * self.last_spread, 1e-9)
        return self.last - self.first > sure

    @property
    def _chance(self) -> float:
        """Standard error of the mean return of a line."""
        return self.spread / max(1, min(self.episodes, WINDOW)) ** 0.5

    @property
    def fell(self) -> bool:
        """Whether it rose clearly and fell again."""
        return self.learned and self.best - self.last > NEAR * self.gain

    @property
    def rising(self) -> bool:
        """Whether it was still rising at the end."""
        return self.learned and not self.fell and self.recent > RISING * self.gain

    @property
    def well(self) -> bool:
        """Whether nothing is wrong with it: solved, or risen and there still."""
        if self.threshold is not None:
            return self.solved
        return self.learned and not self.fell

    @property
    def unwell(self) -> bool:
        """Whether it could be judged and is not well."""
        return self.known and not self.well


def course_of(lines: Sequence[Mapping[str, Any]], status: Mapping[str, Any]) -> Course:
    """The course that lines of metrics and a status tell; NaN where there was no episode."""
    told = [line for line in lines if line.get("episode/return") is not None]
    returns = np.array([line["episode/return"] for line in told], np.float64)
    steps = np.array([line["step"] for line in told], np.float64)
    spreads = np.array([line.get("episode/return_std") or 0.0 for line in told])
    threshold, greedy = status.get("threshold"), status.get("greedy_return")
    episodes = int(max((line.get("episode/count") or 0 for line in lines), default=0))
    if not len(returns):
        nan = float("nan")
        return Course(episodes, nan, nan, nan, nan, nan, 0.0, threshold, greedy)
    part = max(1, len(returns) // 10)
    before = float(np.interp(steps[0] + 0.8 * (steps[-1] - steps[0]), steps, returns))
    last = float(returns[-part:].mean())
    # Where episodes are few, the window's mean is still of the first ones.
    spread = float(np.median(spreads[: max(1, len(spreads) // 4)]))
    if episodes <= WINDOW and isinstance(greedy, int | float):
        sure = greedy - float(returns[0]) > SURE * spread
        last = max(last, float(greedy)) if sure else last
    return Course(
        episodes,
        first=float(returns[0]),
        best=max(float(returns.max()), last),
        last=last,
        spread=spread,
        last_spread=float(spreads[-part:].mean()),
        recent=float(returns[-1]) - before,
        threshold=threshold,
        greedy=greedy,
        lines=len(returns),
        answers="groups/truncated" in told[-1],
    )
