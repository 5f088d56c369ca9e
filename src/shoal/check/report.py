"""What `check_env` found: records in plain words, as lines, as a table, as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console

Verdict = Literal["ok", "warning", "error"]

CHECKS = (
    "make",
    "wrappers",
    "spaces",
    "dtype",
    "reset",
    "step",
    "observation",
    "finite",
    "bounds",
    "reward",
    "names",
    "cost",
    "raises",
    "hangs",
    "masks",
    "actions",
    "buffers",
    "shared",
    "ends",
    "agents",
    "time-limit",
    "determinism",
    "seed",
    "resume",
    "reward-scale",
    "obs-scale",
    "action-scale",
    "rows",
    "workers",
    "speed",
    "resets",
    "startup",
    "memory",
    "close",
)
"""All checks, in the order in which they are reported."""
WEIGHT = {"ok": 0, "warning": 1, "error": 2}
COLORS = {"ok": "green", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `says` is what was seen, with rows, steps and values; `advice` what to do, empty where all is well."""

    name: str
    verdict: Verdict
    says: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast the environment is, and where the time goes.

    `startup_s`: seconds to import what is needed, make one environment and reset it. `bare`: steps per second of one
    environment under random actions, resets included. `rows`: steps per second of `num_rows` rows of the backend
    `serial`, 0 where that was not reached. `reset_share`: part of the bare time that passes in `reset`.
    `bytes_per_step`: growth of the process's memory. `workers`: steps per second of as many rows in processes, 0 where
    that was not asked for.
    """

    startup_s: float
    bare: float
    rows: float
    num_rows: int
    reset_share: float
    bytes_per_step: float
    workers: float = 0.0

    @property
    def million_s(self) -> float:
        """Seconds that a million steps take in `serial`, or else in the bare loop, without any learning."""
        return 1e6 / (self.rows or self.bare)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings about one environment, in the order of the checks; `skipped` names checks that could not be made."""

    env: str
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]
    speed: Speed | None
    seconds: float

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps the environment from being trained, or makes what is learned from it wrong."""
        return self._with("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What can be lived with, and may well be meant."""
        return self._with("warning")

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def record(self) -> dict[str, object]:
        """Everything as plain values, for JSON."""
        whole: dict[str, object] = asdict(self)
        whole["ok"] = self.ok
        if self.speed is not None:
            speed = asdict(self.speed)
            whole["speed"] = speed | {"million_s": self.speed.million_s}
        return whole

    def __str__(self) -> str:
        lines = [f"{self.env}: {self._summary()}"]
        for finding in self.findings:
            lines.append(f"  {finding.verdict:<8} {finding.name}: {finding.says}")
            if finding.advice:
                lines.append(f"           {finding.advice}")
        lines += [f"  {line}" for line in self._last_lines()]
        return "\n".join(lines)

    def show(self, console: Console) -> None:
        """Prints a table of what was seen, and below it what to do."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("check", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("what was seen")
        for finding in self.findings:
            verdict = Text(finding.verdict, style=COLORS[finding.verdict])
            table.add_row(finding.name, verdict, Text(finding.says))
        console.print(table)
        advice = Table(
            box=None,
            padding=(0, 2, 0, 0),
            show_header=False,
            title_justify="left",
        )
        for finding in (*self.errors, *self.warnings):
            if finding.advice:
                name = Text(finding.name, style=COLORS[finding.verdict])
                advice.add_row(name, Text(finding.advice))
        if advice.row_count:
            console.print("\nWhat to do", advice, sep="\n")
        console.print()
        for line in (*self._last_lines(), f"{self.env}: {self._summary()}"):
            console.print(Text(line))

    def _with(self, verdict: Verdict) -> tuple[Finding, ...]:
        chosen = [finding for finding in self.findings if finding.verdict == verdict]
        return tuple(chosen)

    def _last_lines(self) -> list[str]:
        lines: list[str] = []
        if self.skipped:
            names = ", ".join(self.skipped)
            lines.append(f"Not checked, because of the above: {names}.")
        if self.speed is not None:
            needed = duration(self.speed.million_s)
            lines.append(
                f"1 M steps take about {needed} in `serial`, without learning."
            )
        return lines

    def _summary(self) -> str:
        count = Counter(finding.verdict for finding in self.findings)
        parts: list[str] = []
        for verdict in ("error", "warning"):
            number = count[verdict]
            if number:
                plural = "s" if number != 1 else ""
                parts.append(f"{number} {verdict}{plural}")
        said = ", ".join(parts) or "no errors, no warnings"
        return f"{said}, {count['ok']} checks passed, {self.seconds:.1f} s"


class Findings:
    """The findings so far; the first one that is not ok stays for its name."""

    def __init__(self) -> None:
        self._made: dict[str, Finding] = {}

    def ok(self, name: str, says: str) -> None:
        """All is well, unless something else was noted before under that name."""
        self._made.setdefault(name, Finding(name, "ok", says))

    def warn(self, name: str, says: str, advice: str) -> None:
        """Something that can be lived with."""
        self._note(Finding(name, "warning", says, advice))

    def error(self, name: str, says: str, advice: str) -> None:
        """Something that must be fixed."""
        self._note(Finding(name, "error", says, advice))

    def has(self, *names: str) -> bool:
        """Whether a check of one of these names is not ok."""
        made = [self._made[name] for name in names if name in self._made]
        return any(finding.verdict != "ok" for finding in made)

    @property
    def failed(self) -> bool:
        """Whether there is an error."""
        return any(finding.verdict == "error" for finding in self._made.values())

    @property
    def all(self) -> tuple[Finding, ...]:
        """In the order of `CHECKS`."""
        return tuple(self._made[name] for name in CHECKS if name in self._made)

    def _note(self, finding: Finding) -> None:
        before = self._made.get(finding.name)
        if before is None or WEIGHT[before.verdict] < WEIGHT[finding.verdict]:
            self._made[finding.name] = finding


def duration(seconds: float) -> str:
    """Seconds as people say them: `0.4 ms`, `40 s`, `12 min`, `3.5 h`."""
    if seconds < 0.1:
        return f"{1e3 * seconds:.2g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def shown(value: object, most: int = 100) -> str:
    """A value in one line, cut where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
