"""Domain randomization: parameters of an environment that every episode draws anew, from a range that may widen."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

INFO = "env/"
"""Info keys of drawn values: env/NAME."""
OPTION = "options."
"""A parameter options.NAME goes to the environment's reset as options={NAME: value}."""
SEED_MASK = 0x53686F616C447277
"""A row's draws come from NumPy's default_rng(seed of the row ^ SEED_MASK), never from the environment's generator."""
LEAST_MASS = 0.01


@dataclass(frozen=True, slots=True)
class Uniform:
    """Numbers between `low` and `high`, all equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuses an empty range."""
        _check_range(self, self.low, self.high)

    def __str__(self) -> str:
        return f"uniform:{self.low},{self.high}"

    def numbers(self) -> tuple[float, ...]:
        """What the native side is told."""
        return (self.low, self.high)

    def draw(self, random: Callable[[], float]) -> float:
        """One number; `random` gives doubles in [0, 1)."""
        return self.low + (self.high - self.low) * random()

    def around(self, start: float, share: float) -> Uniform:
        """The range whose ends have gone `share` of the way from `start` to their places."""
        return Uniform(
            start + (self.low - start) * share, start + (self.high - start) * share
        )


@dataclass(frozen=True, slots=True)
class LogUniform:
    """Numbers between `low` and `high` (both above 0) whose logarithms are equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuses an empty range, and one that touches 0."""
        _check_range(self, self.low, self.high)
        if not self.low > 0:
            raise ConfigError(f"{self}: a loguniform range must lie above 0")

    def __str__(self) -> str:
        return f"loguniform:{self.low},{self.high}"

    def numbers(self) -> tuple[float, ...]:
        """What the native side is told: the ends' logarithms."""
        return (math.log(self.low), math.log(self.high))

    def draw(self, random: Callable[[], float]) -> float:
        """One number; `random` gives doubles in [0, 1)."""
        low, high = self.numbers()
        return math.exp(low + (high - low) * random())

    def around(self, start: float, share: float) -> Uniform:
        """The range of the logarithms, whose ends have gone `share` of the way from the start's to their places."""
        return Uniform(*self.numbers()).around(math.log(start), share)


@dataclass(frozen=True, slots=True)
class Normal:
    """Normally distributed numbers; those outside [low, high] are drawn again."""

    mean: float
    std: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        """Refuses a spread of 0 and bounds that hardly any number lies between."""
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ConfigError(f"{self}: mean and std must be finite, and std above 0")
        if not self._below(self.high) - self._below(self.low) >= LEAST_MASS:
            raise ConfigError(
                f"{self}: fewer than {LEAST_MASS:.0%} of the draws lie within the bounds; widen them"
            )

    def __str__(self) -> str:
        return "normal:" + ",".join(map(str, self.numbers()))

    def _below(self, end: float) -> float:
        """The share of all draws below `end`."""
        return 0.5 * (1 + math.erf((end - self.mean) / (self.std * math.sqrt(2))))

    def numbers(self) -> tuple[float, ...]:
        """What the native side is told."""
        return (self.mean, self.std, self.low, self.high)

    def draw(self, random: Callable[[], float]) -> float:
        """One number by Box and Muller's formula; `random` gives doubles in [0, 1)."""
        while True:
            radius = math.sqrt(-2.0 * math.log(1.0 - random()))
            value = self.mean + self.std * (radius * math.cos(2.0 * math.pi * random()))
            if self.low <= value <= self.high:
                return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the given numbers, all equally likely."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses an empty choice."""
        if not self.values or not all(map(math.isfinite, self.values)):
            raise ConfigError(
                f"{self}: a choice needs at least one number, all of them finite"
            )

    def __str__(self) -> str:
        return "choice:" + ",".join(map(str, self.values))

    def numbers(self) -> tuple[float, ...]:
        """What the native side is told."""
        return self.values

    def draw(self, random: Callable[[], float]) -> float:
        """One of the numbers; `random` gives doubles in [0, 1)."""
        return self.values[int(random() * len(self.values))]


Distribution: TypeAlias = Uniform | LogUniform | Normal | Choice


@dataclass(frozen=True, slots=True)
class Curriculum:
    """A range that begins as the point `start` and grows evenly to the whole over the first `over_steps` steps.

    Steps are counted of all rows together: each row's own, times the number of rows. An episode draws from the range
    as it stands when the episode begins. Evaluation draws from the whole range.
    """

    range: Distribution
    start: float
    over_steps: float

    def __post_init__(self) -> None:
        """Refuses a start outside the range, and other distributions than ranges."""
        if isinstance(self.range, Normal | Choice):
            raise ConfigError(
                f"a curriculum widens a uniform or loguniform range, not {self.range}"
            )
        if not self.range.low <= self.start <= self.range.high:
            raise ConfigError(f"{self}: the start must lie within the range")
        if not (self.over_steps > 0 and math.isfinite(self.over_steps)):
            raise ConfigError(f"{self}: the steps must be a number above 0")

    def __str__(self) -> str:
        return f"{self.range} from {self.start} over {self.over_steps}"

    def draw(self, random: Callable[[], float], steps: int) -> float:
        """One number from the range as it stands after this many steps."""
        assert isinstance(self.range, Uniform | LogUniform)
        if steps >= self.over_steps:
            return self.range.draw(random)
        value = self.range.around(self.start, steps / self.over_steps).draw(random)
        if isinstance(self.range, LogUniform):
            return math.exp(value)
        return value


Ranges: TypeAlias = dict[str, Distribution | Curriculum]

_KINDS: dict[str, tuple[Callable[..., Distribution], tuple[int, ...], str]] = {
    "uniform": (Uniform, (2,), "uniform:LOW,HIGH"),
    "loguniform": (LogUniform, (2,), "loguniform:LOW,HIGH"),
    "normal": (Normal, (2, 4), "normal:MEAN,STD or normal:MEAN,STD,LOW,HIGH"),
    "choice": (lambda *values: Choice(values), (), "choice:A,B,..."),
}
_TEXT = re.compile(
    rf"(?P<kind>{'|'.join(_KINDS)}):(?P<numbers>\S*)(?: from (?P<start>\S+) over (?P<steps>\S+))?"
)


def parse(text: str) -> Distribution | Curriculum | None:
    """A distribution from its text, such as `uniform:-12,-8 from -10 over 200000`; None where the text is none.

    Raises:
        ConfigError: it begins as a distribution does, but goes on otherwise.
    """
    kind = text.partition(":")[0]
    if kind not in _KINDS or ":" not in text:
        return None
    make, counts, form = _KINDS[kind]
    match = _TEXT.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        numbers = [_number(part) for part in match["numbers"].split(",")]
        if counts and len(numbers) not in counts:
            raise ValueError
        widens: tuple[float, float] | None = None
        if match["start"] is not None:
            widens = _number(match["start"]), float(match["steps"])
    except ValueError:
        raise ConfigError(
            f"{text!r}: write {form}, and perhaps ' from START over STEPS' for a range"
        ) from None
    made = make(*numbers)
    if widens is None:
        return made
    return Curriculum(made, *widens)


def _read(value: object) -> object:
    """A distribution where a keyword's value is the text of one; else the value."""
    if not isinstance(value, str):
        return value
    return parse(value)


def split(
    env_kwargs: Mapping[str, Any], num_rows: int = 1
) -> tuple[dict[str, Any], Ranges]:
    """The keywords that are fixed, and those that are drawn, whose steps are counted a row."""
    fixed: dict[str, Any] = {}
    ranges: Ranges = {}
    for name, value in env_kwargs.items():
        found = _read(value)
        if isinstance(found, Curriculum):
            ranges[name] = replace(found, over_steps=found.over_steps / num_rows)
        elif isinstance(found, Distribution):
            ranges[name] = found
        elif name.startswith(OPTION) and isinstance(value, int | float):
            ranges[name] = Choice((value,))
        else:
            fixed[name] = value
    return fixed, ranges


def as_text(env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords with distributions as the texts that `parse` reads."""
    texts = dict(env_kwargs)
    for name, value in env_kwargs.items():
        if isinstance(value, Distribution | Curriculum):
            texts[name] = str(value)
    return texts


def whole(env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords with each curriculum's whole range in its place, as evaluation has them."""
    wide = dict(env_kwargs)
    for name, value in env_kwargs.items():
        found = _read(value)
        if isinstance(found, Curriculum):
            wide[name] = found.range
    return wide


def info_keys_of(ranges: Ranges) -> tuple[str, ...]:
    """The info keys of the drawn values."""
    return tuple(INFO + name for name in ranges)


def native_draws(ranges: Ranges) -> list[tuple[str, str, list[float], float, float]]:
    """The distributions as `_native.Pool` takes them: name, kind, numbers, and where and how long a range widens."""
    draws: list[tuple[str, str, list[float], float, float]] = []
    for name, given in ranges.items():
        start, over_steps = 0.0, 0.0
        if isinstance(given, Curriculum):
            drawn, start, over_steps = given.range, given.start, given.over_steps
            if isinstance(drawn, LogUniform):
                start = math.log(start)
        else:
            drawn = given
        kind, numbers = type(drawn).__name__.lower(), list(drawn.numbers())
        draws.append((name, kind, numbers, start, over_steps))
    return draws


class Randomizer:
    """The draws of Python rows, each from a generator of its own.

    An attribute of the unwrapped environment is set before the reset; `options.NAME` goes to the reset itself.
    """

    def __init__(self, ranges: Ranges, envs: Sequence[object], name: str) -> None:
        """`envs`: the unwrapped environment of each row; ConfigError where one lacks a number of that name."""
        self._ranges = ranges
        self._envs = envs
        self._generators = [np.random.default_rng() for _ in envs]
        self.steps = [0] * len(envs)
        """Steps of each row since it was seeded, without those of the episode under way."""
        for attribute in (key for key in ranges if not key.startswith(OPTION)):
            for env in envs:
                _check_settable(env, attribute, name)

    def begin(self, row: int, start: dict[str, Any], length: int) -> dict[str, Any]:
        """Sets the row's parameters, before its reset; returns what the episode begins from, drawn values included.

        `start` holds `drawn` where they are given; else they are drawn, after `length` further steps of the row.
        """
        if "drawn" not in start:
            self.steps[row] += length
            if "seed" in start:
                seed = (start["seed"] & (2**64 - 1)) ^ SEED_MASK
                self._generators[row] = np.random.default_rng(seed)
                self.steps[row] = 0
            start = start | {"drawn": self._draw(row)}
        for key, value in start["drawn"].items():
            name = key.removeprefix(INFO)
            if name.startswith(OPTION):
                option = {name.removeprefix(OPTION): value}
                start = start | {"options": start.get("options", {}) | option}
            else:
                setattr(self._envs[row], name, value)
        return start

    def _draw(self, row: int) -> dict[str, float]:
        """A value of each parameter, by its info key."""
        random, steps = self._generators[row].random, self.steps[row]
        drawn: dict[str, float] = {}
        for name, given in self._ranges.items():
            if isinstance(given, Curriculum):
                drawn[INFO + name] = given.draw(random, steps)
            else:
                drawn[INFO + name] = given.draw(random)
        return drawn

    def state(self) -> list[dict[str, Any]]:
        """Each row's generator and steps."""
        states: list[dict[str, Any]] = []
        for generator, steps in zip(self._generators, self.steps, strict=True):
            states.append({"generator": generator.bit_generator.state, "steps": steps})
        return states

    def restore(self, state: Sequence[dict[str, Any]]) -> None:
        """The inverse of `state`."""
        for row, saved in enumerate(state):
            self._generators[row].bit_generator.state = saved["generator"]
            self.steps[row] = int(saved["steps"])


def _check_settable(env: object, attribute: str, name: str) -> None:
    found = getattr(env, attribute, None)
    if not isinstance(found, int | float | np.number) or isinstance(found, bool):
        numbers: list[str] = []
        for key, value in vars(env).items():
            if isinstance(value, int | float) and key[0] != "_":
                numbers.append(key)
        near = get_close_matches(attribute, numbers, n=3) or sorted(numbers)
        hint = f"; it has {', '.join(near)}" if near else ""
        raise ConfigError(
            f"{name} has no number {attribute!r} that could be drawn{hint}. What its reset(options=...) takes is named "
            f"{OPTION}{attribute}"
        )
    try:
        setattr(env, attribute, found)
    except AttributeError as error:
        raise ConfigError(f"{name}: {attribute!r} cannot be set: {error}") from error


def _check_range(given: object, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ConfigError(f"{given}: the ends must be finite, and low not above high")


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)
