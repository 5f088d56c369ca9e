"""Logs of shadow and canary: one line of JSON an episode, behind a line that says of which policy they are."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from shoal.deploy.stages.drift import Seen
from shoal.run.reading import INT64, open_regular, parse_json, sentence
from shoal.run.records import HUGE, LINE_BYTES, lines_of
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shoal.deploy.stages.drift import Reference

Kind: TypeAlias = Literal["shadow", "canary"]
FORMAT = "shoal-stage-log-1"
MOST_EPISODES = 100_000
BYTES = 256 << 20
NUMBERS = ("total", "distance")
COUNTS = ("episode", "steps", "agreed", "interventions")


@dataclass(frozen=True, slots=True)
class Header:
    """Which policy, where."""

    kind: str
    policy: str
    """The sha256 of its weights."""
    spec: str
    """The sha256 of what it observes and does."""
    env: str
    at: str
    share: float = 0.0
    """Of episodes in which the policy is to act; 0 beside the controller."""


@dataclass(frozen=True, slots=True)
class Played:
    """An episode."""

    episode: int
    acted: str
    """`controller` or `policy`."""
    steps: int
    total: float
    """The sum of rewards."""
    agreed: int
    """Steps in which the other one would have done the same."""
    distance: float
    """Sum over the steps."""
    interventions: int
    """Steps in which the action guard changed what the policy wanted."""
    cost: float | None = None
    """The sum of costs; None where steps have none, or not all of them were handed over."""
    drifted: tuple[str, ...] = ()
    """Features whose drift was alarmed, of all that was seen so far."""


class StageLog:
    """Writes a log; when it is full, or the disk is, it says so once, and whoever acts goes on."""

    def __init__(self, path: Path, header: Header) -> None:
        """A new file; ConfigError where there is one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.episodes, self.open = path, 0, True
        self._told = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            self._file = os.fdopen(os.open(path, flags, 0o666), "wb", buffering=0)
        except FileExistsError as error:
            raise ConfigError(f"{path} is there already; name another file") from error
        self._write({"format": FORMAT, **asdict(header)})

    def add(self, played: Played, seen: Seen | None) -> None:
        """Writes an episode, and what was observed in it; of a closed log it is said once that nothing is."""
        if self._file.closed and not self._told:
            self._told = True
            self._end("it was closed")
        if self.open and self.episodes >= MOST_EPISODES:
            self._end(f"it has {MOST_EPISODES:,} episodes")
        if self.open:
            self._write(asdict(played) | {"seen": seen and seen.state()})
            self.episodes += 1

    def _write(self, said: Mapping[str, Any]) -> None:
        line = json.dumps(said).encode() + b"\n"
        if self._file.tell() + len(line) > BYTES or len(line) > LINE_BYTES:
            self._end("it would be too large")
            return
        try:
            self._file.write(line)
        except OSError as error:
            self._end(f"{error.strerror}")

    def _end(self, why: str) -> None:
        self.open = False
        warnings.warn(
            f"{self.path} is written no further: {why}; begin another log", stacklevel=4
        )

    def close(self) -> None:
        """Nothing is written any more."""
        self.open = False
        self._file.close()


@dataclass(frozen=True, slots=True)
class Log:
    """A log that was read."""

    header: Header
    episodes: list[Played]
    seen: Seen | None
    """What was observed, where drift was watched."""


def read_log(path: Path, *, reference: Reference | None, expected: Header) -> Log:
    """A log of the policy and the spaces of `expected`; a torn last line is left out.

    Raises:
        ConfigError: no file, another kind of log, of another policy or other spaces, or damaged.
    """
    try:
        file = open_regular(path, at_most=BYTES, links=True)
    except FileNotFoundError as error:
        raise ConfigError(f"no log {path}") from error
    with file:
        lines = lines_of(file)
        header: Header | None = None
        episodes: list[Played] = []
        seen = None if reference is None else Seen(reference)
        for number, line in enumerate(lines):
            try:
                if line is None or number > MOST_EPISODES:
                    raise ValueError("it is too long")
                said = parse_json(line)
                if not isinstance(said, dict):
                    raise ValueError("it is no table")
                table = cast("dict[str, Any]", said)
                if header is None:
                    header = _header(table)
                    _check(path, header, expected)
                    continue
                episodes.append(_played(table))
                if seen is not None and table["seen"] is not None:
                    seen.merge(Seen.of(seen.reference, table["seen"]))
            except ConfigError:
                raise
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                raise ConfigError(
                    f"{path}, line {number + 1}, is damaged ({sentence(error)}); begin another log"
                ) from error
    if header is None:
        raise ConfigError(f"{path} is empty, and no log of a stage")
    return Log(header, episodes, seen)


def _check(path: Path, header: Header, expected: Header) -> None:
    if header.kind != expected.kind:
        raise ConfigError(
            f"{path} is a log of the stage {header.kind}, and {expected.kind} is entered"
        )
    if header.spec != expected.spec:
        raise ConfigError(
            f"{path} is of other observations or actions ({printable(header.env, 80)}) than {expected.env} has"
        )
    if header.policy != expected.policy:
        raise ConfigError(
            f"{path} is of another policy, {header.policy[:12]}, and the one that enters is {expected.policy[:12]}; "
            "take a log of this one"
        )


def _header(said: Mapping[str, Any]) -> Header:
    if said.get("format") != FORMAT:
        raise ValueError(f"it does not begin as {FORMAT} does")
    texts = [said[name] for name in ("kind", "policy", "spec", "env", "at")]
    if not all(isinstance(text, str) and len(text) <= 1000 for text in texts):
        raise ValueError("its first line has no names")
    return Header(*texts, share=_number(said["share"]))


def _played(said: Mapping[str, Any]) -> Played:
    counts: dict[str, Any] = {name: said[name] for name in COUNTS}
    if any(
        type(count) is not int or not 0 <= count < INT64 for count in counts.values()
    ):
        raise ValueError("a count is none")
    steps = counts["steps"]
    if not steps or counts["agreed"] > steps or counts["interventions"] > steps:
        raise ValueError("there are more events than steps")
    if said["acted"] not in ("policy", "controller"):
        raise ValueError("nobody acted")
    total, distance = (_number(said[name]) for name in NUMBERS)
    cost = said.get("cost")
    return Played(
        acted=said["acted"],
        **counts,
        total=total,
        distance=distance,
        cost=None if cost is None else _number(cost),
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number is none")
    if not abs(value) <= HUGE:  # sums of them are finite then; NaN is not, either
        raise ValueError("a number is not finite, or far too large")
    return float(value)
