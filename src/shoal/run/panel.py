"""What a person sees of a run: a live panel in a terminal, plain lines elsewhere, or JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from shoal.run.loop import Run


class Panel(Protocol):
    """Shows the progress of a run."""

    def update(self, record: dict[str, Any], run: Run) -> None:
        """Shows a line of metrics."""
        ...

    def warn(self, message: str) -> None:
        """Shows a warning."""
        ...

    def close(self) -> None:
        """Leaves the terminal as it was."""
        ...


class Plain:
    """A line every few seconds."""

    def __init__(self, every_s: float = 2.0) -> None:
        """`every_s`: seconds between lines."""
        self.every_s, self._last = every_s, -1e9

    def update(self, record: dict[str, Any], run: Run) -> None:  # noqa: ARG002
        """Prints step, return and speed."""
        if time.monotonic() - self._last < self.every_s:
            return
        self._last = time.monotonic()
        shown = record.get("episode/return")
        mean = "-" if shown is None else f"{shown:.1f}"
        print(f"step {record['step']:>10,}  return {mean:>8}  {record['speed/sps']:>12,.0f} steps/s", flush=True)

    def warn(self, message: str) -> None:
        """Prints to stderr."""
        print(f"warning: {message}", file=sys.stderr, flush=True)

    def finish(self, result: Any) -> None:
        """Prints the figure that is quoted."""
        print(f"greedy return {result.greedy_return:.1f} over 100 episodes, {result.steps:,} steps, {result.seconds:.1f} s: {result.path}")

    def close(self) -> None:
        """Nothing to do."""


class Json:
    """Each record as a JSON line on stdout."""

    def update(self, record: dict[str, Any], run: Run) -> None:  # noqa: ARG002
        """Prints the record."""
        print(json.dumps(record), flush=True)

    def warn(self, message: str) -> None:
        """Prints {"warning": message}."""
        print(json.dumps({"warning": message}), flush=True)

    def finish(self, result: Any) -> None:
        """Prints the figure that is quoted."""
        print(json.dumps({"greedy_return": result.greedy_return, "steps": result.steps, "seconds": result.seconds, "run": str(result.path)}), flush=True)

    def close(self) -> None:
        """Nothing to do."""


class Silent:
    """Nothing but warnings."""

    def update(self, record: dict[str, Any], run: Run) -> None:
        """Shows nothing."""

    def warn(self, message: str) -> None:
        """Prints to stderr."""
        print(f"warning: {message}", file=sys.stderr, flush=True)

    def finish(self, result: Any) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Nothing to do."""


def panel_of(kind: str) -> Any:
    """The panel of a name: auto, live, plain, json or none."""
    return {"plain": Plain, "json": Json, "none": Silent, "auto": Plain}[kind]()
