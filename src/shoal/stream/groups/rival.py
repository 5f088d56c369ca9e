"""Rival: plays a game's players that do not learn, with older weights of the model or those of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.learn.older import Fixed, Older
    from shoal.llm.sampler.protocol import Drawn, Request, Sampler

STEPS = 4
"""Tokens that it draws at a time, where it draws in this process."""


class Rival:
    """A sampler that draws with weights of its own."""

    def __init__(self, sampler: Sampler, weights: Older | Fixed) -> None:
        """Nothing is asked yet. `sampler`: closed with this."""
        self._sampler, self._weights = sampler, weights
        self._count = 0
        """Weights that were loaded."""

    @property
    def pending(self) -> int:
        """Turns that were asked for and not handed over yet."""
        return self._sampler.pending

    def hear(self, requests: Sequence[Request], *, wait: bool) -> list[Drawn]:
        """Has turns drawn; those that are finished.

        Args:
            requests: what is asked anew.
            wait: for a first one, where it draws in another process; in this one it draws a few tokens in any case.
        """
        if requests and not self._count:
            self._load()
        if requests:
            self._sampler.submit(requests)
        if not self._sampler.pending:
            return []
        if getattr(self._sampler, "apart", False):
            return self._sampler.poll(None if wait else 0)
        return self._sampler.poll(STEPS)

    def follow(self) -> None:
        """Called after each published version."""
        if self._weights.follow():
            self._load()

    def state(self) -> dict[str, Any]:
        """Every turn under way, to the token; the weights are the learner's to keep."""
        return self._sampler.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues; the learner was restored before."""
        self._load()
        self._sampler.restore(state)

    def close(self) -> None:
        """Ends the sampler."""
        self._sampler.close()

    def _load(self) -> None:
        self._count += 1
        self._sampler.load(self._count, self._weights.module)
